//! Every constant by which the engine decides, with unit, reason, effect and source.
//!
//! Only we turn these; what users turn is in `node/config`. Relations between them are asserted here.
//! The simulator (`sim/`) is where a new value is tried first.

use std::time::Duration;

/// Fewest pieces asked of a peer at once. One would leave the link idle for a round trip after each
/// piece; more delays the rarest-first choice on slow links.
pub const WINDOW_PIECES_MIN: u32 = 2;

/// Time that the requests outstanding at a peer should cover at its measured rate. Less starves the
/// link while a disk or a scheduler dozes, more makes cancels and moves dear.
pub const WINDOW_SPAN: Duration = Duration::from_millis(500);

/// Most bytes asked of one peer at once: 500 MB/s over 30 ms, and what one peer can make us wait for.
pub const WINDOW_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Most requests outstanding at one peer, whatever their size; also what we accept from a peer before
/// we answer `Busy`. The field's usual figure (libtorrent: 500).
pub const REQUESTS_MAX: u32 = 512;

/// Pieces taken at random before rarest first begins, so that a newcomer soon holds something others
/// lack (libtorrent `initial_picker_threshold`: 4).
pub const RANDOM_FIRST_PIECES: u32 = 4;

/// Entries of the rarity order looked at for one pick before falling back to a search by words.
/// Bounds the cost of a pick for a peer that holds little.
pub const PICK_SCAN_MAX: u32 = 256;

/// A peer with requests outstanding that sent nothing for this long is suspect, at least.
/// Less misjudges a sleeping scheduler, more delays the reroute that the product promises within 2 s.
pub const SILENCE_MIN: Duration = Duration::from_millis(1_000);

/// Who has said nothing for this long, asked or not, comes after all others as a source and as a receiver:
/// it may be gone. Nothing else follows, so it may be shorter than [`SILENCE_MIN`]; shorter than [`HEARTBEAT`] it
/// would tell nothing. With 1 s a seed whose receivers half fall silent idles 0.4 s longer.
pub const QUIET_AFTER: Duration = Duration::from_millis(600);

/// Time that a peer has to answer a request in any case, however long it was silent before: one round trip.
/// Less takes a peer that had no reason to speak for silent, more lets silent peers hold pieces longer.
pub const ANSWER_MIN: Duration = Duration::from_millis(400);

/// Upper end of the adaptive silence limit: even a slow peer repeats `Queued` or `Serving` often.
pub const SILENCE_MAX: Duration = Duration::from_millis(2_500);

/// Silence limit in smoothed piece times of the peer, between the two bounds above.
pub const SILENCE_PIECE_TIMES: u32 = 4;

/// How long a suspect may stay silent before its session ends.
pub const SUSPECT_MAX: Duration = Duration::from_secs(5);

/// A tick that comes this late means that we slept, not that the peers were silent.
pub const OVERSLEPT: Duration = Duration::from_millis(500);

/// An uploader tells each waiting peer this often that it is alive.
pub const HEARTBEAT: Duration = Duration::from_millis(500);

/// A piece is asked elsewhere when it would arrive this many times sooner there.
pub const STEAL_FACTOR: u32 = 2;

/// Gain in time below which a piece is not moved while others can be asked for instead. Turns come in bursts, so the rate of a
/// peer says little about when the next one comes, and a cancel takes a tenth of a second through full queues: with 200 ms
/// half of the pieces that eight peers on shaped links moved came from both, 5 to 8 % of all bytes; now 0.3 %.
pub const STEAL_GAIN_MIN: Duration = Duration::from_millis(1_000);

/// The same once every piece is asked of somebody: whoever is idle has nothing else to ask for, and the transfer takes no
/// longer than its last piece.
pub const STEAL_GAIN_LAST: Duration = Duration::from_millis(200);

/// A piece in service is not judged slow before its bytes have arrived for this long.
pub const JUDGE_AFTER: Duration = Duration::from_millis(750);

/// A peer whose piece would take this much longer when it is asked elsewhere is snubbed. Peers that are
/// slow but useful must not be.
pub const SNUB_LEFT_MIN: Duration = Duration::from_secs(10);

/// Who was asked for this long in all and sent no whole piece is snubbed: it may let us wait for ever. Less hits
/// those in whose line many wait, more lets it hold the last pieces.
pub const BARREN_AFTER: Duration = Duration::from_secs(5);

/// A snubbed peer takes over nothing for this long, and until its next whole piece it is asked only for what nobody
/// better holds. Less lets it hold up pieces again and again (each for [`RATE_SPAN`]), more wastes a source that
/// was slow for a while.
pub const SNUB_SPAN: Duration = Duration::from_secs(30);

/// The span doubles so often, while no whole piece comes: who dribbles is tried seldom, and still again.
pub const SNUB_DOUBLINGS_MAX: u32 = 3;

/// After this long without progress a snubbed peer's request is asked elsewhere: it proved slow before. Less than
/// a round trip and the time of a piece would never let it prove the contrary.
pub const PROBATION_JUDGE_AFTER: Duration = Duration::from_millis(400);

/// Requests that a peer may refuse as not held although it announced the piece and did not take it back.
/// Claims are free to make: who breaks more is banned.
pub const UNKEPT_CLAIMS_MAX: u32 = 2;

/// Most peers a piece is asked of at once (end game and slow service).
pub const ASKED_MAX: usize = 2;

/// `Have` messages are gathered for at most this long.
pub const HAVE_COALESCE: Duration = Duration::from_millis(20);

/// Most runs in one `Have`, `Request` or `Cancel`: 10 bytes each at most, well below the frame ceiling.
pub const RUNS_PER_MESSAGE_MAX: usize = 4_096;

/// Peers served at the same time, fewest. Few at a time lets each receiver forward its piece sooner:
/// 2, 4 and 8 ended 3, 5 and 9 % above the optimum in an idealised model. One ends no sooner than two in
/// the simulator, wastes five times as much on cancels that come late, and leaves the uplink idle while
/// the driver reads the next piece.
pub const SERVED_PEERS_MIN: usize = 2;

/// Peers served at the same time, most; reached one by one, each while it makes the whole faster.
pub const SERVED_PEERS_MAX: usize = 8;

/// Time over which a further place is tried. Less measures noise, more fills a fast uplink late.
pub const SLOT_PERIOD: Duration = Duration::from_millis(500);

/// A further place is kept when the bytes of its period grew by one part in this many.
pub const SLOT_GAIN: u64 = 10;

/// Periods between two trials of a place.
pub const SLOT_REST: u32 = 20;

/// First copies that a peer of a seed has to wait for; with fewer it is suggested more. Two let it ask
/// for the second while the first is sent.
pub const PROMISES_PER_PEER: usize = 2;

/// A suggestion not taken up for this long is made to somebody else, and its peer gets none for
/// [`SUGGESTION_REST`].
pub const SUGGESTION_LAPSES: Duration = Duration::from_millis(500);

/// See [`SUGGESTION_LAPSES`]: the piece may have been on its way from somebody slow just then.
pub const SUGGESTION_REST: Duration = Duration::from_secs(5);

/// After so many suggestions in a row that nobody took up, a seed no longer holds back repeats for the next: with
/// thirteen peers whose windows are full it would serve nobody ever again.
pub const LAPSED_IN_ROW_MAX: usize = 8;

/// Pieces that an idle uplink offers: those it got last.
pub const OFFERED_PIECES: usize = 16;

/// A piece is offered so long before it is expected, some round trips: who is offered it has asked for it by then,
/// and the uplink is not idle meanwhile.
pub const OFFER_AHEAD: Duration = Duration::from_millis(60);

/// A request for a piece that was offered ahead and does not come is refused after this long.
pub const EARLY_LAPSES: Duration = Duration::from_millis(300);

/// A request is moved to whom offers to serve it from a line of at least so many peers. From a shorter one it
/// would be served as soon, perhaps before the cancel is there.
pub const LINE_LEFT_FROM: u32 = 5;

/// Who waits in a shorter line for longer than this leaves it all the same: each of the few has many pieces there.
/// Less wastes what is sent before the cancel is there.
pub const SHORT_LINE_LASTS: Duration = Duration::from_millis(200);

/// Offers that are not made again.
pub const OFFERS_REMEMBERED: usize = 64;

/// An offer that brought no request within this time, about a round trip, is followed by another.
pub const OFFER_LAPSES: Duration = Duration::from_millis(40);

/// Pieces sent to a peer before it is judged by how few of them it says it has.
pub const HIDDEN_PIECES_MIN: u32 = 8;

/// Most suggested pieces asked of a peer beyond its window.
pub const SUGGESTED_BEYOND_WINDOW: u32 = 4;

/// Pieces in service for one peer at once: the second is read while the first is written.
pub const SERVICE_DEPTH: usize = 2;

/// A served peer that took no byte for this long no longer counts as one of the peers served. Less takes
/// each lost packet for a dead peer and serves one more meanwhile, which is cheap; more lets peers that
/// fell silent hold all places: with 1 s, 21 of them cost 20 others half of their time.
pub const SERVICE_STUCK: Duration = Duration::from_millis(300);

/// Nor does one whose piece takes longer than this: who takes a byte per second starves nobody.
pub const SERVICE_LONG: Duration = Duration::from_secs(5);

/// Who took a byte this recently still pulls, though it waits for nothing: all it asked for lies in buffers on the way to a
/// slow downlink, and it asks for more when that has come.
pub const PULL_LASTS: Duration = Duration::from_secs(2);

/// Every n-th turn goes to whom waited longest, whatever it gave: newcomers start that way.
pub const OPTIMISTIC_TURN: u32 = 4;

/// A peer that has fewer pieces than this is served before those to whom more is owed, those with the fewest
/// first: its uplink is idle until it has something to give.
pub const NEWCOMER_PIECES: u32 = 4;

/// Peers a share tries to stay connected to.
pub const PEERS_TARGET: usize = 40;

/// Peers of a share beyond which a newcomer takes the place of one that is idle, or is turned away.
pub const PEERS_MAX: usize = 64;

/// A peer that asks for nothing so long after it came keeps its place from no newcomer. A fetch asks within a round trip
/// and the writing of its part folder.
pub const GUEST_BEGINS_WITHIN: Duration = Duration::from_secs(3);

/// A peer that gave or took something may rest for so long: its downlink, its disk or its user may be slow.
pub const GUEST_RESTS_MAX: Duration = Duration::from_secs(15);

/// A full table is looked over this often for peers that are of no use. Less tears what may still become
/// useful, more lets a swarm that lacks a piece wait longer for the seed that has joined.
pub const TURNOVER_EVERY: Duration = Duration::from_secs(10);

/// A peer that neither gave nor took a byte for this long is of no use.
pub const USELESS_AFTER: Duration = Duration::from_secs(20);

/// Peers parted from at one look.
pub const TURNOVER_PEERS_MAX: usize = 2;

/// Peers nearby beyond which distant ones are dialled first: links out of each subnet keep the swarm one component,
/// and bring pieces that nobody nearby holds yet.
pub const PEERS_NEAR: usize = 30;

/// One of so many offers goes to any peer that lacks the piece, the others to near ones: pieces leave each neighbourhood.
pub const OFFER_AFAR_OF: u32 = 4;

/// A peer whose first byte of a piece was here this soon after an idle line asked for it is near: within a city, or
/// on a link without a queue.
pub const NEAR_ANSWER_MAX: Duration = Duration::from_millis(10);

/// Dials under way at once for a share.
pub const DIALS_MAX: usize = 8;

/// Peers remembered for a share, connected or not; more are forgotten, unreachable ones first.
pub const CANDIDATES_MAX: usize = 1_024;

/// First pause after a failed dial or a lost connection; doubles each time.
pub const BACKOFF_MIN: Duration = Duration::from_millis(500);

/// Longest pause between dials of one peer: a restarted seeder is met again within this time.
pub const BACKOFF_MAX: Duration = Duration::from_secs(8);

/// First and longest pause between two searches for peers while the table is below target.
pub const SEARCH_MIN: Duration = Duration::from_millis(500);
/// See [`SEARCH_MIN`].
pub const SEARCH_MAX: Duration = Duration::from_secs(20);

/// No verified byte for this long makes a transfer stalled, which is said, not acted upon.
pub const STALL_AFTER: Duration = Duration::from_secs(3);

/// A reroute is reported at the latest after this long, with the pieces that found a new peer.
pub const REROUTE_REPORT_MAX: Duration = Duration::from_secs(2);

/// Messages a peer may send that break no rule of syntax but make no sense, before it is dropped.
pub const NONSENSE_MAX: u32 = 300;

/// Pieces a peer may name in announcements, in multiples of those of the share. An honest one names each
/// about once. Each costs us work, and a few bytes name all.
pub const ANNOUNCED_TIMES_MAX: u64 = 16;

/// As many times again each second: whoever touches a file under a seeder makes it take back and offer again what is in the
/// file. Less drops honest holders whose files are touched all the time, more costs us more work for a hostile peer.
pub const ANNOUNCED_TIMES_PER_SEC: u64 = 4;

/// Time over which rates are measured.
pub const RATE_SPAN: Duration = Duration::from_secs(2);

/// Slots of the rate window.
pub const RATE_SLOTS: usize = 8;

const _: () = assert!(SILENCE_MIN.as_millis() >= 2 * HEARTBEAT.as_millis());
const _: () = assert!(SILENCE_MIN.as_millis() <= SILENCE_MAX.as_millis());
const _: () = assert!(HEARTBEAT.as_millis() < QUIET_AFTER.as_millis());
const _: () = assert!(ANSWER_MIN.as_millis() < SILENCE_MIN.as_millis());
const _: () = assert!(SILENCE_MAX.as_millis() < SUSPECT_MAX.as_millis());
const _: () = assert!(1 <= SERVED_PEERS_MIN && SERVED_PEERS_MIN <= SERVED_PEERS_MAX);
const _: () = assert!(PEERS_TARGET <= PEERS_MAX && PEERS_MAX <= CANDIDATES_MAX);
const _: () = assert!(PEERS_NEAR < PEERS_TARGET);
const _: () = assert!(STEAL_GAIN_LAST.as_millis() <= STEAL_GAIN_MIN.as_millis());
const _: () = assert!(BACKOFF_MIN.as_millis() <= BACKOFF_MAX.as_millis());
const _: () = assert!(RUNS_PER_MESSAGE_MAX * 10 <= crate::wire::FRAME_LEN_MAX);
const _: () = assert!(REQUESTS_MAX as usize <= RUNS_PER_MESSAGE_MAX);

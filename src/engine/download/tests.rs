//! How windows, silence, snubs and judgements of one peer as a source come about, on plain numbers.

use super::estimate::{NEVER, Progress};
use super::*;

const LEN: u32 = 65_536;

fn at(millis: u64) -> Time {
    Time::from_start(Duration::from_millis(millis))
}

fn piece(index: u32) -> PieceIndex {
    PieceIndex::new(index)
}

/// A peer that delivers one piece every `every` milliseconds from time 0 on.
fn steady(pieces: u32, every: u64) -> (Download, Time) {
    let mut download = Download::new(at(0), LEN);
    let mut now = at(0);
    for index in 0..pieces {
        download.ask(now, piece(index), LEN);
        now = at(every * u64::from(index + 1));
        download.on_life(now);
        download.on_bytes(now, piece(index), LEN);
        download.on_arrived(now, piece(index));
    }
    (download, now)
}

#[test]
fn the_window_starts_at_two_pieces_and_grows_with_the_rate() {
    let mut download = Download::new(at(0), LEN);
    let mut asked = 0;
    while download.has_room(LEN) {
        download.ask(at(0), piece(asked), LEN);
        asked += 1;
    }
    assert_eq!(asked, tuning::WINDOW_PIECES_MIN);

    let (mut fast, now) = steady(400, 1);
    let mut room = 0;
    while fast.has_room(LEN) {
        fast.ask(now, piece(1_000 + room), LEN);
        room += 1;
    }
    let bytes = u64::from(room * LEN);
    assert!(
        bytes > tuning::WINDOW_BYTES_MAX / 2 && bytes <= tuning::WINDOW_BYTES_MAX,
        "{bytes}"
    );
}

#[test]
fn a_peer_without_requests_is_never_silent() {
    let (download, _) = steady(3, 50);
    assert_eq!(download.deadline(), None);
}

#[test]
fn silence_is_counted_from_the_first_request_after_a_pause() {
    let (mut download, _) = steady(3, 50);
    download.ask(at(60_000), piece(9), LEN);
    assert_eq!(download.deadline(), Some(at(60_000) + tuning::SILENCE_MIN));
}

#[test]
fn a_slow_peer_gets_more_patience_but_not_endless() {
    let (mut download, now) = steady(20, 400);
    download.ask(now, piece(90), LEN);
    let patience = download.deadline().expect("waiting").duration_since(now);
    assert!(patience > tuning::SILENCE_MIN, "{patience:?}");
    let (mut slower, now) = steady(20, 5_000);
    slower.ask(now, piece(90), LEN);
    assert_eq!(slower.deadline(), Some(now + tuning::SILENCE_MAX));
}

#[test]
fn a_request_behind_one_that_goes_on_for_a_while_has_surely_not_its_turn() {
    let mut download = Download::new(at(0), LEN);
    download.ask(at(0), piece(0), LEN);
    download.ask(at(0), piece(1), LEN);
    assert!(!download.is_behind(at(10), piece(1)), "neither has begun");
    download.on_bytes(at(100), piece(0), LEN / 4);
    download.on_bytes(at(140), piece(0), LEN / 4);
    assert!(!download.is_behind(at(140), piece(1)), "40 ms are left");
    assert!(download.is_behind(at(200), piece(1)), "100 ms are left");
    assert!(!download.is_behind(at(200), piece(0)), "it has its turn");
    assert!(!download.is_behind(at(200), piece(2)), "not asked");
}

#[test]
fn a_piece_is_nearly_here_when_half_of_it_is_and_the_rest_comes_fast() {
    let mut download = Download::new(at(0), LEN);
    download.ask(at(0), piece(0), LEN);
    download.on_bytes(at(0), piece(0), LEN / 4);
    assert!(!download.is_nearly_here(at(0), piece(0)));
    download.on_bytes(at(20), piece(0), LEN / 4);
    assert!(download.is_nearly_here(at(20), piece(0)));
    assert!(!download.is_nearly_here(at(100), piece(0)), "it is slow");
}

#[test]
fn who_was_snubbed_is_judged_sooner() {
    let begun = |snubbed| {
        let mut download = Download::new(at(0), LEN);
        if snubbed {
            download.snub(at(0));
        }
        download.ask(at(0), piece(0), LEN);
        download.on_bytes(at(0), piece(0), 1);
        download.progress(at(500), piece(0))
    };
    let left = Duration::ZERO;
    assert_eq!(begun(false), Some(Progress::Arrives { left }));
    assert_eq!(begun(true), Some(Progress::Arrives { left: NEVER }));
}

#[test]
fn a_snub_ends_with_the_next_piece_or_in_time() {
    let (mut download, now) = steady(3, 50);
    download.snub(now);
    assert!(download.is_snubbed(now) && !download.is_snubbed(now + tuning::SNUB_SPAN));
    download.ask(now, piece(7), LEN);
    download.on_arrived(now, piece(7));
    assert!(!download.is_snubbed(now));
}

#[test]
fn any_frame_ends_suspicion() {
    let mut download = Download::new(at(0), LEN);
    download.ask(at(0), piece(0), LEN);
    download.become_suspect(at(1_000));
    assert_eq!(download.deadline(), Some(at(1_000) + tuning::SUSPECT_MAX));
    assert!(download.on_life(at(1_100)));
    assert!(!download.is_suspect());
    assert!(!download.on_life(at(1_200)), "only the first frame is news");
}

#[test]
fn a_request_asked_elsewhere_leaves_the_window_but_is_remembered() {
    let mut download = Download::new(at(0), LEN);
    download.ask(at(0), piece(0), LEN);
    download.ask(at(0), piece(1), LEN);
    assert!(!download.has_room(LEN));
    download.unrely(piece(0));
    download.unrely(piece(0));
    assert_eq!(download.relied_count(), 1);
    assert!(download.has_room(LEN) && download.has_asked(piece(0)));
    assert!(download.forget(piece(0)).is_some());
    assert_eq!(download.relied_count(), 1);
}

#[test]
fn only_a_piece_that_surely_waits_may_be_moved() {
    let mut download = Download::new(at(0), LEN);
    (0..3).for_each(|index| download.ask(at(0), piece(index), LEN));
    let waits = |download: &Download, index| {
        let progress = download.progress(at(10), piece(index));
        matches!(progress, Some(Progress::Waits { .. }))
    };
    assert!(!waits(&download, 0) && !waits(&download, 1));
    assert!(waits(&download, 2), "two others come before it");
    download.on_queued(tuning::LINE_LEFT_FROM);
    assert!(waits(&download, 0));
    download.on_bytes(at(9), piece(1), 10);
    assert!(!waits(&download, 0) && !waits(&download, 1));
}

#[test]
fn a_request_behind_one_that_dribbles_is_known_to_wait() {
    let mut download = Download::new(at(0), LEN);
    (0..2).for_each(|index| download.ask(at(0), piece(index), LEN));
    for second in 1..10 {
        download.on_bytes(at(second * 1_000), piece(0), 1);
    }
    let expected = Some(Progress::Waits { left: NEVER });
    assert_eq!(download.progress(at(9_100), piece(1)), expected);
}

#[test]
fn a_request_that_never_begins_at_a_peer_that_lives_is_late() {
    let mut download = Download::new(at(0), LEN);
    download.ask(at(0), piece(0), LEN);
    let later = at(0) + tuning::RATE_SPAN + Duration::from_millis(1);
    download.on_life(later);
    let expected = Some(Progress::Arrives { left: NEVER });
    assert_eq!(download.progress(later, piece(0)), expected);
}

#[test]
fn a_piece_in_service_at_a_peer_gone_slow_is_expected_late() {
    let (mut download, now) = steady(40, 50);
    download.ask(now, piece(50), LEN);
    assert_eq!(
        download.progress(now, piece(50)),
        None,
        "nothing can be said yet"
    );
    let later = now + Duration::from_secs(4);
    download.on_life(later);
    download.on_bytes(later, piece(50), 1);
    assert_eq!(
        download.progress(later, piece(50)),
        Some(Progress::Arrives {
            left: Duration::ZERO
        }),
        "too early to tell"
    );
    let judged = later + Duration::from_secs(1);
    let progress = download.progress(judged, piece(50));
    let Some(Progress::Arrives { left }) = progress else {
        panic!("{progress:?}");
    };
    assert!(left > Duration::from_secs(3_000), "{left:?}");
}

#[test]
fn withdrawing_a_request_and_making_another_does_not_begin_the_silence_anew() {
    let mut download = Download::new(at(0), LEN);
    for round in 0..2 {
        download.ask(at(10_000 + round * 500), piece(0), LEN);
        download.forget(piece(0));
    }
    download.ask(at(11_000), piece(0), LEN);
    let answer = at(11_000) + tuning::ANSWER_MIN;
    assert_eq!(download.deadline(), Some(answer), "silent since 10 s");
    download.on_life(at(11_100));
    assert_eq!(download.deadline(), Some(at(11_100) + tuning::SILENCE_MIN));
}

#[test]
fn a_peer_that_was_heard_after_its_request_was_withdrawn_owes_nothing() {
    let mut download = Download::new(at(0), LEN);
    download.ask(at(1_000), piece(0), LEN);
    download.forget(piece(0));
    download.on_life(at(1_100));
    download.ask(at(60_000), piece(0), LEN);
    assert_eq!(download.deadline(), Some(at(60_000) + tuning::SILENCE_MIN));
}

#[test]
fn a_request_in_a_short_line_is_not_taken_away() {
    let mut download = Download::new(at(0), LEN);
    download.ask(at(0), piece(0), LEN);
    assert_eq!(download.waiting().count(), 0, "nobody said that it waits");
    for (in_line, waits) in [
        (tuning::LINE_LEFT_FROM - 1, false),
        (tuning::LINE_LEFT_FROM, true),
    ] {
        download.on_queued(in_line);
        assert_eq!(
            download.waiting().next().is_some(),
            waits,
            "{in_line} in line"
        );
        assert_eq!(download.waiting().count(), usize::from(waits));
    }
    download.on_serving();
    assert!(download.waiting().next().is_none());
}

#[test]
fn the_rest_of_one_piece_does_not_mean_that_the_next_is_served() {
    let mut download = Download::new(at(0), LEN);
    (0..2).for_each(|index| download.ask(at(0), piece(index), LEN));
    download.on_bytes(at(100), piece(0), LEN / 2);
    download.on_queued(tuning::LINE_LEFT_FROM);
    download.on_bytes(at(120), piece(0), LEN / 4);
    let waiting: Vec<_> = download.waiting().map(|(piece, _)| piece).collect();
    assert_eq!(waiting, [piece(1)]);
    download.on_bytes(at(140), piece(1), 1);
    assert_eq!(download.waiting().count(), 0, "it is served");
}

/// Lets so many seconds pass from `now` on; the moment when they have.
fn pass(download: &mut Download, now: Time, seconds: u64) -> Time {
    let second = Duration::from_secs(1);
    (1..=seconds as u32).for_each(|passed| download.on_span(now + second * passed, second));
    now + second * seconds as u32
}

#[test]
fn who_owes_a_piece_for_long_is_snubbed_longer_each_time_until_one_comes() {
    let long = tuning::BARREN_AFTER.as_secs();
    let (mut download, now) = steady(3, 50);
    let mut now = pass(&mut download, now, 10 * long);
    assert!(!download.is_on_probation(), "it owes nothing");
    for doublings in 0..2 {
        // What is withdrawn and asked again counts together, the time between does not.
        download.ask(now, piece(7), LEN);
        now = pass(&mut download, now, long / 2);
        download.forget(piece(7));
        now = pass(&mut download, now, long);
        assert!(!download.is_snubbed(now));
        download.ask(now, piece(8), LEN);
        now = pass(&mut download, now, long - long / 2);
        let ends = now + tuning::SNUB_SPAN * (1 << doublings);
        assert!(download.is_snubbed(now + tuning::SNUB_SPAN / 2) && !download.is_snubbed(ends));
        download.forget(piece(8));
        now = ends;
    }
    assert!(download.is_on_probation(), "also when the span is over");
    download.ask(now, piece(9), LEN);
    download.on_arrived(now, piece(9));
    assert!(!download.is_on_probation() && !download.is_snubbed(now));
}

#[test]
fn bytes_of_an_earlier_request_do_not_make_a_slow_piece_look_whole() {
    let mut download = Download::new(at(0), LEN);
    download.ask(at(0), piece(0), LEN);
    download.forget(piece(0));
    download.ask(at(100), piece(0), LEN);
    // Half of it was on its way; the other half is of the new request, and then one byte comes every 200 ms.
    download.on_bytes(at(110), piece(0), LEN / 2);
    download.on_bytes(at(120), piece(0), LEN / 2);
    for count in 1..10 {
        download.on_bytes(at(120 + 200 * count), piece(0), 1);
    }
    let progress = download.progress(at(2_000), piece(0));
    let Some(Progress::Arrives { left }) = progress else {
        panic!("its bytes arrive: {progress:?}");
    };
    assert!(left > Duration::from_secs(600), "{left:?}");
}

//! Reader and writer of a control stream.
//!
//! The reader turns frames into what shares are told; the writer gathers what is queued into one write.
//! Both end with the session.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::allowance::{Allowance, OPEN_STEPS, pieces_of};
use super::{MESSAGES_LEN_MAX, Session};
use crate::engine::DownCause;
use crate::network::PeerStream;
use crate::node::share::{Share, ShareInput};
use crate::wire::{
    AGENT_LEN_MAX, Control, FrameBuffer, Hello, ShareMessage, VERSION, encode_frame,
};

/// A session says something at least this often. It finds peers that are stopped and not dead: who waits for bytes has
/// deadlines of its own (`engine/tuning`), and the kernel ends connections whose host is gone. More often costs an idle seed
/// traffic with each of its peers, less often leaves no time for a message that is late.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// A peer whose next message is not whole after this long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(30);

const _: () = assert!(KEEP_ALIVE.as_secs() + 10 <= SILENCE_MAX.as_secs());

/// The first message has to come sooner.
const HELLO_MAX: Duration = Duration::from_secs(5);

/// A peer with which no share is open for so long ends: it has one in common with us, or it has no business here.
const SHARELESS_MAX: Duration = Duration::from_secs(10);

/// Bytes read at once, and bytes gathered for one write.
const READ_LEN: usize = 16 * 1024;
const WRITE_LEN: usize = 64 * 1024;

/// Why a session ends.
type Ended = (DownCause, String);

pub(super) async fn read(session: Session, mut stream: ReadHalf<PeerStream>) {
    let ending = session.0.ending.clone();
    let (cause, reason) = tokio::select! {
        () = ending.cancelled() => return,
        () = session.0.squeezed.cancelled() => (DownCause::Closed, "it holds memory and does not move".into()),
        ended = read_messages(&session, &mut stream) => ended,
    };
    session.end(cause, reason);
}

/// Reads whole messages.
struct Reader<R> {
    stream: R,
    frames: FrameBuffer,
    bytes: Box<[u8]>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    fn new(stream: R) -> Self {
        Self {
            stream,
            frames: FrameBuffer::default(),
            bytes: vec![0; READ_LEN].into(),
        }
    }

    /// The next message, which has to be whole at `until`: a few bytes now and then are no sign of life.
    ///
    /// # Errors
    /// Why the session ends.
    async fn next(&mut self, until: Instant) -> Result<Control, Ended> {
        loop {
            match self.frames.next_message() {
                Ok(Some(message)) => return Ok(message),
                Ok(None) => {}
                Err(error) => return Err((DownCause::Violation, error.to_string())),
            }
            let len = match timeout_at(until, self.stream.read(&mut self.bytes)).await {
                Err(_) => return Err((DownCause::Closed, "it fell silent".into())),
                Ok(Err(error)) => return Err((DownCause::Closed, error.to_string())),
                Ok(Ok(0)) => return Err((DownCause::Closed, "connection closed".into())),
                Ok(Ok(len)) => len,
            };
            self.frames.feed(&self.bytes[..len]);
        }
    }
}

async fn read_messages(session: &Session, stream: &mut ReadHalf<PeerStream>) -> Ended {
    let mut reader = Reader::new(stream);
    let mut allowance = Allowance::new();
    let mut spoken_of = BTreeSet::new();
    let mut met = false;
    let mut shareless: Option<Instant> = None;
    loop {
        let silent_at = Instant::now() + if met { SILENCE_MAX } else { HELLO_MAX };
        shareless = match session.has_share() {
            true => None,
            false => shareless.or_else(|| Some(Instant::now() + SHARELESS_MAX)),
        };
        let until = shareless.map_or(silent_at, |shareless| shareless.min(silent_at));
        let message = match reader.next(until).await {
            Ok(message) => message,
            Err(_) if until < silent_at && Instant::now() >= until => {
                // One that we opened meanwhile has no answer yet.
                if session.has_share() {
                    continue;
                }
                return (DownCause::Left, "no share in common".into());
            }
            Err(ended) => return ended,
        };
        match message {
            Control::Hello(hello) if !met => {
                if hello.agent.len() > AGENT_LEN_MAX {
                    return (DownCause::Violation, "agent string too long".into());
                }
                // Set once: only the first Hello comes here.
                let _ = session.0.agent.set(hello.agent);
                met = true;
            }
            Control::Hello(_) => return (DownCause::Violation, "a second hello".into()),
            _ if !met => return (DownCause::Violation, "no hello".into()),
            Control::Open { number, token } => {
                allowance.take(OPEN_STEPS).await;
                session.on_open(number, &token);
            }
            Control::Unknown { number } => session.on_unknown(number),
            Control::Close { number, complete } => session.on_close(number, complete),
            Control::Share { number, message } => {
                // A number we do not know is a share that was closed while the message was on its way.
                let Some(share) = session.share(number) else {
                    continue;
                };
                let mut steps = 1;
                // Until then the message costs its actor nothing.
                if let Some(ready) = share.ready.get() {
                    let piece_count = ready.geometry().piece_count();
                    if spoken_of.insert(share.number) {
                        allowance.share(piece_count);
                    }
                    // One that names more is refused whole.
                    steps += pieces_of(&message).min(u64::from(piece_count));
                }
                allowance.take(steps).await;
                on_share(session, &share, message).await;
            }
            Control::KeepAlive => {}
            Control::Goodbye => return (DownCause::Left, "it left".into()),
        }
    }
}

async fn on_share(session: &Session, share: &Share, message: ShareMessage) {
    let room = len_of(&message).clamp(1, MESSAGES_LEN_MAX) as u32;
    let room = Arc::clone(&session.0.room).acquire_many_owned(room).await;
    let input = ShareInput::Message {
        session: session.id(),
        message,
        _room: room.expect("the semaphore is never closed"),
    };
    // The share has left: nobody waits for this.
    let _ = share.inputs.send(input).await;
}

/// Bytes of what a message holds beside itself.
fn len_of(message: &ShareMessage) -> usize {
    match message {
        ShareMessage::Have { runs }
        | ShareMessage::DontHave { runs }
        | ShareMessage::Request { runs }
        | ShareMessage::Cancel { runs } => size_of_val(&**runs),
        ShareMessage::Bitfield { bytes, .. } => bytes.len(),
        ShareMessage::Peers { records } => {
            let records = records.as_slice();
            let bytes: usize = records.iter().map(Vec::len).sum();
            size_of_val(records) + bytes
        }
        _ => 0,
    }
}

pub(super) async fn write(
    session: Session,
    mut stream: WriteHalf<PeerStream>,
    mut jobs: mpsc::Receiver<Control>,
) {
    let ending = session.0.ending.clone();
    let ended = tokio::select! {
        () = ending.cancelled() => return,
        ended = write_messages(&session, &mut stream, &mut jobs) => ended,
    };
    if let Err(error) = ended {
        let reason = error.to_string();
        session.end_after_control(DownCause::Closed, reason).await;
    }
}

async fn write_messages(
    session: &Session,
    stream: &mut WriteHalf<PeerStream>,
    jobs: &mut mpsc::Receiver<Control>,
) -> std::io::Result<()> {
    let hello = Hello {
        version: VERSION,
        requests_max: crate::engine::tuning::REQUESTS_MAX,
        agent: session.0.shop.agent.clone(),
    };
    let mut bytes = Vec::with_capacity(WRITE_LEN);
    encode_frame(&Control::Hello(hello), &mut bytes);
    loop {
        stream.write_all(&bytes).await?;
        stream.flush().await?;
        bytes.clear();
        let message = match tokio::time::timeout(KEEP_ALIVE, jobs.recv()).await {
            Err(_) => Control::KeepAlive,
            Ok(Some(message)) => message,
            Ok(None) => return Ok(()),
        };
        let mut next = Some(message);
        while let Some(message) = next {
            encode_frame(&message, &mut bytes);
            if message == Control::Goodbye {
                stream.write_all(&bytes).await?;
                stream.flush().await?;
                session.0.flushed.notify_waiters();
                return Ok(());
            }
            next = if bytes.len() < WRITE_LEN {
                jobs.try_recv().ok()
            } else {
                None
            };
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::duplex;
    use tokio::time::sleep;

    use super::*;
    use crate::wire::ShareNumber;

    fn frame(message: &Control) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode_frame(message, &mut bytes);
        bytes
    }

    fn hello() -> Control {
        Control::Hello(Hello {
            version: VERSION,
            requests_max: 1,
            agent: "somebody/1.2.3".into(),
        })
    }

    /// Reads messages that come a byte each `pause`; gives how many were whole, when it ended, and why.
    async fn dribbled(
        messages: &[Control],
        pause: Duration,
        patience: Duration,
    ) -> (usize, Duration, Ended) {
        let (near, mut far) = duplex(64);
        let bytes: Vec<u8> = messages.iter().flat_map(frame).collect();
        tokio::spawn(async move {
            for byte in bytes {
                sleep(pause).await;
                // The reader has given up.
                let _ = far.write_all(&[byte]).await;
            }
            sleep(patience * 2).await;
        });
        let (began, mut reader, mut whole) = (Instant::now(), Reader::new(near), 0);
        loop {
            match reader.next(Instant::now() + patience).await {
                Ok(message) => {
                    assert_eq!(message, messages[whole]);
                    whole += 1;
                }
                Err(ended) => return (whole, began.elapsed(), ended),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_hello_byte_by_byte_buys_no_more_time_than_silence() {
        let (whole, after, (cause, reason)) =
            dribbled(&[hello()], Duration::from_secs(1), HELLO_MAX).await;
        assert_eq!((whole, after), (0, HELLO_MAX));
        assert_eq!((cause, &*reason), (DownCause::Closed, "it fell silent"));
    }

    #[tokio::test(start_paused = true)]
    async fn each_whole_message_buys_time_and_half_a_one_does_not() {
        let short = frame(&Control::KeepAlive).len() as u32;
        let long = Control::Open {
            number: ShareNumber(1),
            token: [7; 32],
        };
        let pause = SILENCE_MAX / (short + 1);
        let messages = [Control::KeepAlive, Control::KeepAlive, long];
        let (whole, after, _) = dribbled(&messages, pause, SILENCE_MAX).await;
        assert_eq!(whole, 2);
        assert_eq!(after, pause * (2 * short) + SILENCE_MAX);
    }
}

//! Reader and writer of a control stream.
//!
//! The reader turns frames into what shares are told; the writer gathers what is queued into one write.
//! Both end with the session.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use super::Session;
use crate::engine::DownCause;
use crate::network::PeerStream;
use crate::node::share::ShareInput;
use crate::wire::{
    AGENT_LEN_MAX, Control, FrameBuffer, Hello, ShareMessage, ShareNumber, VERSION, encode_frame,
};

/// A session says something at least this often.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// A peer that said nothing for this long on its control stream is gone.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// The first message has to come sooner.
const HELLO_MAX: Duration = Duration::from_secs(5);

/// Bytes read at once, and bytes gathered for one write.
const READ_LEN: usize = 16 * 1024;
const WRITE_LEN: usize = 64 * 1024;

pub(super) async fn read(session: Session, mut stream: ReadHalf<PeerStream>) {
    let ending = session.0.ending.clone();
    let ended = tokio::select! {
        () = ending.cancelled() => return,
        ended = read_messages(&session, &mut stream) => ended,
    };
    let (cause, reason) = ended;
    session.end(cause, reason);
}

async fn read_messages(
    session: &Session,
    stream: &mut ReadHalf<PeerStream>,
) -> (DownCause, String) {
    let mut frames = FrameBuffer::default();
    let mut bytes = vec![0; READ_LEN];
    let mut met = false;
    loop {
        let patience = if met { SILENCE_MAX } else { HELLO_MAX };
        let len = match tokio::time::timeout(patience, stream.read(&mut bytes)).await {
            Err(_) => return (DownCause::Closed, "it fell silent".into()),
            Ok(Err(error)) => return (DownCause::Closed, error.to_string()),
            Ok(Ok(0)) => return (DownCause::Closed, "connection closed".into()),
            Ok(Ok(len)) => len,
        };
        frames.feed(&bytes[..len]);
        loop {
            let message = match frames.next_message() {
                Ok(Some(message)) => message,
                Ok(None) => break,
                Err(error) => return (DownCause::Violation, error.to_string()),
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
                Control::Open { number, token } => session.on_open(number, &token),
                Control::Unknown { number } => session.on_unknown(number),
                Control::Close { number, complete } => session.on_close(number, complete),
                Control::Share { number, message } => on_share(session, number, message).await,
                Control::KeepAlive => {}
                Control::Goodbye => return (DownCause::Left, "it left".into()),
            }
        }
    }
}

async fn on_share(session: &Session, number: ShareNumber, message: ShareMessage) {
    // A number we do not know is a share that was closed while the message was on its way.
    if let Some(share) = session.share(number) {
        let input = ShareInput::Message {
            session: session.id(),
            message,
        };
        // The share has left: nobody waits for this.
        let _ = share.inputs.send(input).await;
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

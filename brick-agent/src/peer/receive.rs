//! Takes files and ranges out of a stream of frames: only those that were asked
//! for, in their order, of the size that was announced.

use nearbrick_core::FileId;
use nearbrick_core::heal::Reason;

use super::FetchSink;
use super::connection::{CallError, Frames};
use super::frame::Frame;
use super::wire::{FetchItem, ReadRequest};

/// The answer to a ranged read: bytes, or why not.
///
/// # Errors
/// The connection is of no use then.
pub async fn take_range(
    frames: &mut Frames,
    wanted: &ReadRequest,
) -> Result<Result<Vec<u8>, Reason>, CallError> {
    let size = match frames.next().await? {
        Some(Frame::Begin { file, version, size })
            if file == wanted.file && version == wanted.version && size <= u64::from(wanted.len) =>
        {
            usize::try_from(size).map_err(|_| CallError::Rubbish("a range over its bound"))?
        }
        Some(Frame::Failed { file, reason }) if file == wanted.file => {
            return end_of(frames).await.map(|()| Err(reason));
        }
        Some(_) => return Err(CallError::Rubbish("another range than the one asked for")),
        None => return Err(CallError::Unreachable("the stream was cut".to_owned())),
    };
    let mut bytes = Vec::with_capacity(size);
    loop {
        match frames.next().await? {
            Some(Frame::Data(data)) if bytes.len() + data.len() <= size => bytes.extend_from_slice(&data),
            Some(Frame::End { hash }) if bytes.len() == size => {
                if *blake3::hash(&bytes).as_bytes() != hash {
                    return Err(CallError::Rubbish("a range whose hash is wrong"));
                }
                return end_of(frames).await.map(|()| Ok(bytes));
            }
            Some(Frame::Failed { file, reason }) if file == wanted.file => {
                return end_of(frames).await.map(|()| Err(reason));
            }
            Some(_) => return Err(CallError::Rubbish("a range of another size than announced")),
            None => return Err(CallError::Unreachable("the stream was cut".to_owned())),
        }
    }
}

async fn end_of(frames: &mut Frames) -> Result<(), CallError> {
    match frames.next().await? {
        None => Ok(()),
        Some(_) => Err(CallError::Rubbish("more files than were asked for")),
    }
}

/// How a stream of files ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// All came, or were said to fail.
    All,
    /// The sink wants no more.
    Cancelled,
}

/// Passes files to the sink, in the order of `items`. `open` is the file that
/// has begun and not ended.
///
/// # Errors
/// The stream was cut, is slow, or makes no sense; files before stand.
pub async fn take_files(
    frames: &mut Frames,
    items: &[FetchItem],
    sink: &mut dyn FetchSink,
    open: &mut Option<FileId>,
) -> Result<Taken, CallError> {
    for item in items {
        if sink.cancelled() {
            return Ok(Taken::Cancelled);
        }
        let size = match frames.next().await? {
            Some(Frame::Begin { file, version, size }) if file == item.file => {
                if !version.includes(&item.version) {
                    return Err(CallError::Rubbish("an older version than the one asked for"));
                }
                sink.begin(file, version, size);
                *open = Some(file);
                size
            }
            Some(Frame::Failed { file, reason }) if file == item.file => {
                sink.failed(file, reason);
                continue;
            }
            Some(_) => return Err(CallError::Rubbish("another file than the one asked for")),
            None => return Err(CallError::Unreachable("the stream was cut".to_owned())),
        };
        let mut got = 0u64;
        loop {
            match frames.next().await? {
                Some(Frame::Data(data)) if data.len() as u64 <= size - got => {
                    got += data.len() as u64;
                    sink.data(item.file, &data);
                }
                Some(Frame::End { hash }) if got == size => {
                    sink.end(item.file, hash);
                    break;
                }
                Some(Frame::Failed { file, reason }) if file == item.file => {
                    sink.failed(file, reason);
                    break;
                }
                Some(_) => return Err(CallError::Rubbish("a file of another size than announced")),
                None => return Err(CallError::Unreachable("the stream was cut".to_owned())),
            }
        }
        *open = None;
    }
    end_of(frames).await.map(|()| Taken::All)
}

//! Takes files and ranges out of a stream of frames: only those that were asked
//! for, in their order, of the size that was announced.

use nearbrick_core::FileId;
use nearbrick_core::heal::Reason;

use super::FetchSink;
use super::connection::{CallError, Frames};
use super::frame::Frame;
use super::wire::{ChunkList, ChunksRequest, FetchItem, MAX_PIECES, RangesRequest, ReadRequest};

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

/// The answer to a request for chunks: the list, or why not.
///
/// # Errors
/// The connection is of no use then.
pub async fn take_list(
    frames: &mut Frames,
    wanted: &ChunksRequest,
) -> Result<Result<ChunkList, Reason>, CallError> {
    let mut list = match frames.next().await? {
        Some(Frame::Begin { file, version, size })
            if file == wanted.file && version.includes(&wanted.version) =>
        {
            ChunkList { version, size, average: 0, pieces: Vec::new(), hash: [0; 32] }
        }
        Some(Frame::Failed { file, reason }) if file == wanted.file => {
            return end_of(frames).await.map(|()| Err(reason));
        }
        Some(_) => return Err(CallError::Rubbish("other chunks than those asked for")),
        None => return Err(CallError::Unreachable("the stream was cut".to_owned())),
    };
    let mut left = list.size;
    loop {
        match frames.next().await? {
            Some(Frame::Pieces { average, pieces }) => {
                let len = pieces.iter().try_fold(0u64, |sum, piece| sum.checked_add(piece.len()));
                let (Some(rest), true) = (
                    len.and_then(|len| left.checked_sub(len)),
                    list.pieces.is_empty() || average == list.average,
                ) else {
                    return Err(CallError::Rubbish("chunks that are no file of the size announced"));
                };
                if list.pieces.len() + pieces.len() > MAX_PIECES {
                    return Err(CallError::Rubbish("a list of chunks over its bound"));
                }
                left = rest;
                list.average = average;
                list.pieces.extend(pieces);
            }
            Some(Frame::End { hash }) if left == 0 => {
                list.hash = hash;
                return end_of(frames).await.map(|()| Ok(list));
            }
            Some(Frame::Failed { file, reason }) if file == wanted.file => {
                return end_of(frames).await.map(|()| Err(reason));
            }
            Some(_) => return Err(CallError::Rubbish("chunks that are no file of the size announced")),
            None => return Err(CallError::Unreachable("the stream was cut".to_owned())),
        }
    }
}

/// Passes ranges to the sink as if they were a file. `open` says whether it has begun and not ended.
///
/// # Errors
/// The stream was cut, is slow, or makes no sense.
pub async fn take_ranges(
    frames: &mut Frames,
    wanted: &RangesRequest,
    sink: &mut dyn FetchSink,
    open: &mut Option<FileId>,
) -> Result<Taken, CallError> {
    let total = wanted.total();
    match frames.next().await? {
        Some(Frame::Begin { file, version, size })
            if file == wanted.file && version == wanted.version && Some(size) == total =>
        {
            sink.begin(file, version, size);
            *open = Some(file);
            let taken = take_bytes(frames, file, size, sink, false).await?;
            *open = None;
            if taken == Taken::Cancelled {
                return Ok(taken);
            }
        }
        Some(Frame::Failed { file, reason }) if file == wanted.file => sink.failed(file, reason),
        Some(_) => return Err(CallError::Rubbish("other ranges than those asked for")),
        None => return Err(CallError::Unreachable("the stream was cut".to_owned())),
    }
    end_of(frames).await.map(|()| Taken::All)
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
        if take_bytes(frames, item.file, size, sink, true).await? == Taken::Cancelled {
            return Ok(Taken::Cancelled);
        }
        *open = None;
    }
    end_of(frames).await.map(|()| Taken::All)
}

/// The bytes of one file, to its end or its failure.
async fn take_bytes(
    frames: &mut Frames,
    of: FileId,
    size: u64,
    sink: &mut dyn FetchSink,
    holes: bool,
) -> Result<Taken, CallError> {
    let mut left = size;
    loop {
        match frames.next().await? {
            Some(Frame::Data(data)) if data.len() as u64 <= left => {
                left -= data.len() as u64;
                sink.data(of, &data);
            }
            Some(Frame::Hole(len)) if holes && len <= left => {
                left -= len;
                sink.hole(of, len);
            }
            Some(Frame::End { hash }) if left == 0 => {
                sink.end(of, hash);
                return Ok(Taken::All);
            }
            Some(Frame::Failed { file, reason }) if file == of => {
                sink.failed(file, reason);
                return Ok(Taken::All);
            }
            Some(_) => return Err(CallError::Rubbish("a file of another size than announced")),
            None => return Err(CallError::Unreachable("the stream was cut".to_owned())),
        }
        if left > 0 && sink.cancelled() {
            return Ok(Taken::Cancelled);
        }
    }
}

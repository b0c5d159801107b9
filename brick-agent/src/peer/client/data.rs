//! Files at peers: reading, fetching and having them kept; and [`Remote`], which waits for that.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hyper::body::Incoming;
use hyper::{Response, StatusCode};
use nearbrick_core::heal::Reason;
use nearbrick_core::{BrickId, FileId, Object, VersionVector};
use serde::Serialize;

use super::{Client, Peer};
use crate::peer::connection::{CallError, Connection, Frames, collect};
use crate::peer::receive::{Taken, take_files, take_list, take_range, take_ranges};
use crate::peer::wire::{
    self, ChunkList, ChunksRequest, FetchItem, FetchRequest, KeepReply, KeepRequest, NewestRequest,
    RangesRequest, ReadRequest,
};
use crate::peer::{FetchSink, Remote, frame};

/// For so many bytes the holders are put in order where nothing better is known.
const ORDER_BYTES: u64 = 1 << 20;
/// Before a peer that could not bring a version to its disk is asked again, while an `fsync` waits for it.
const KEEP_AGAIN: Duration = Duration::from_millis(500);

impl Client {
    /// Asks a peer to bring a version to its disk, again and again if what stands in the way may pass.
    async fn keep_at(&self, brick: BrickId, wanted: &KeepRequest, limit: Duration) -> Result<(), Reason> {
        let peer = self.peer(brick).map_err(|e| e.reason())?;
        let until = Instant::now() + limit;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.ask_to_keep(&peer, wanted, left).await {
                Err(Reason::Unreachable | Reason::Busy | Reason::SourceChanged) if left > KEEP_AGAIN => {
                    tokio::time::sleep(KEEP_AGAIN).await;
                }
                answer => return answer,
            }
        }
    }

    async fn ask_to_keep(&self, peer: &Peer, wanted: &KeepRequest, limit: Duration) -> Result<(), Reason> {
        let (connection, response) = self.call(peer, "keep", wanted, limit).await.map_err(|e| e.reason())?;
        let reply = collect(response.into_body(), wire::MAX_BODY, limit).await.and_then(|body| {
            let rubbish = CallError::Rubbish("an answer to a request to keep a version that cannot be read");
            let KeepReply { why } = wire::decode(&body).ok_or(rubbish)?;
            match why {
                0 => Ok(Ok(())),
                code => frame::reason(code).map(Err).ok_or(CallError::Rubbish("a reason that is none")),
            }
        });
        let reply = reply.map_err(|e| self.judged(peer, e).reason())?;
        peer.keep(connection);
        reply
    }

    /// A call that begins a stream of data. One that fails is noted for the choice of the next holder.
    async fn data_call<T: Serialize>(
        &self,
        peer: &Peer,
        verb: &str,
        message: &T,
        limit: Duration,
    ) -> Result<(Connection, Response<Incoming>), CallError> {
        let result = self.call(peer, verb, message, limit).await;
        if result.is_err() {
            let now = self.now_ms();
            peer.state().record.failed(now);
        }
        result
    }

    /// Keeps a connection whose stream was taken to its end, or says what went wrong with it.
    fn ended<T>(
        &self,
        peer: &Peer,
        connection: Connection,
        result: Result<T, CallError>,
    ) -> Result<T, Reason> {
        match result {
            Ok(value) => {
                peer.keep(connection);
                Ok(value)
            }
            Err(error) => {
                let now = self.now_ms();
                peer.state().record.failed(now);
                Err(self.judged(peer, error).reason())
            }
        }
    }

    async fn read_from(&self, peer: &Peer, wanted: &ReadRequest) -> Result<Vec<u8>, Reason> {
        let asked = Instant::now();
        let (connection, response) =
            self.data_call(peer, "read", wanted, self.patience.answer).await.map_err(|e| e.reason())?;
        let first = Instant::now();
        let mut frames = Frames::new(response.into_body(), self.patience.answer);
        let result = take_range(&mut frames, wanted).await;
        let result = self.ended(peer, connection, result)?;
        match &result {
            Ok(bytes) => self.measured(peer, bytes.len() as u64, asked, first),
            Err(_) => {
                let now = self.now_ms();
                peer.state().record.failed(now);
            }
        }
        result
    }

    async fn read_any(&self, wanted: &ReadRequest, from: &[BrickId]) -> Result<(BrickId, Vec<u8>), Reason> {
        let mut candidates: Vec<_> = self
            .ordered(from, u64::from(wanted.len))
            .iter()
            .filter_map(|brick| self.peer(*brick).ok())
            .filter_map(|peer| {
                let down = peer.state().down;
                let skip = down.is_some_and(|d| d.slow && d.until > Instant::now());
                (!skip).then_some((down.is_some(), peer))
            })
            .collect();
        // Stable: that order among those that answered last time.
        candidates.sort_by_key(|(down, _)| *down);
        let mut reason = Reason::Unreachable;
        for (_, peer) in candidates {
            match self.read_from(&peer, wanted).await {
                Ok(bytes) => return Ok((peer.brick, bytes)),
                Err(Reason::Unreachable) => {}
                // What a peer that answers says is more to the point.
                Err(why) => reason = why,
            }
        }
        Err(reason)
    }

    async fn fetch_batch(
        &self,
        peer: &Peer,
        items: &[FetchItem],
        sink: &mut dyn FetchSink,
    ) -> Result<(), Reason> {
        let request = FetchRequest { items: items.to_vec() };
        let limit = self.patience.stream;
        let (connection, response) =
            self.data_call(peer, "fetch", &request, limit).await.map_err(|e| e.reason())?;
        let mut frames = Frames::new(response.into_body(), limit);
        let mut open = None;
        let result = take_files(&mut frames, items, sink, &mut open).await;
        self.taken(peer, connection, result, sink, open)
    }

    async fn ranges_of(
        &self,
        peer: &Peer,
        wanted: &RangesRequest,
        sink: &mut dyn FetchSink,
    ) -> Result<(), Reason> {
        let limit = self.patience.stream;
        let (connection, response) =
            self.data_call(peer, "ranges", wanted, limit).await.map_err(|e| e.reason())?;
        let mut frames = Frames::new(response.into_body(), limit);
        let mut open = None;
        let result = take_ranges(&mut frames, wanted, sink, &mut open).await;
        self.taken(peer, connection, result, sink, open)
    }

    /// The end of a stream into a sink.
    fn taken(
        &self,
        peer: &Peer,
        connection: Connection,
        result: Result<Taken, CallError>,
        sink: &mut dyn FetchSink,
        open: Option<FileId>,
    ) -> Result<(), Reason> {
        if matches!(result, Ok(Taken::Cancelled)) {
            // The rest of the stream is still to come: the connection is of no use.
            return Ok(());
        }
        self.ended(peer, connection, result).map(drop).inspect_err(|reason| {
            if let Some(file) = open {
                sink.failed(file, *reason);
            }
        })
    }

    async fn list_of(&self, peer: &Peer, wanted: &ChunksRequest) -> Result<Option<ChunkList>, Reason> {
        let limit = self.patience.stream;
        let (connection, response) = match self.data_call(peer, "chunks", wanted, limit).await {
            Ok(answer) => answer,
            // An agent that is older than this request.
            Err(CallError::Refused(StatusCode::NOT_FOUND, _)) => return Ok(None),
            Err(error) => return Err(error.reason()),
        };
        let mut frames = Frames::new(response.into_body(), limit);
        let result = take_list(&mut frames, wanted).await;
        match self.ended(peer, connection, result)? {
            Ok(list) => Ok(Some(list)),
            // Too long to be listed.
            Err(Reason::NoSpace) => Ok(None),
            Err(reason) => Err(reason),
        }
    }
}

impl Remote for Client {
    fn read(
        &self,
        file: FileId,
        version: &VersionVector,
        offset: u64,
        len: usize,
        from: &[BrickId],
    ) -> Result<(BrickId, Vec<u8>), Reason> {
        let len = u32::try_from(len.min(wire::MAX_READ)).unwrap_or(u32::MAX);
        let wanted = ReadRequest { file, version: version.clone(), offset, len };
        self.runtime.block_on(async {
            tokio::time::timeout(self.patience.read, self.read_any(&wanted, from))
                .await
                .unwrap_or(Err(Reason::Unreachable))
        })
    }

    fn fetch(&self, from: BrickId, items: &[FetchItem], sink: &mut dyn FetchSink) -> Result<(), Reason> {
        let peer = self.peer(from).map_err(|e| e.reason())?;
        for batch in batches(items) {
            if sink.cancelled() {
                break;
            }
            self.runtime.block_on(self.fetch_batch(&peer, batch, sink))?;
        }
        Ok(())
    }

    fn chunks(
        &self,
        from: BrickId,
        file: FileId,
        version: &VersionVector,
    ) -> Result<Option<Arc<ChunkList>>, Reason> {
        let peer = self.peer(from).map_err(|e| e.reason())?;
        let wanted = ChunksRequest { file, version: version.clone() };
        self.runtime.block_on(self.list_of(&peer, &wanted)).map(|list| list.map(Arc::new))
    }

    fn ranges(&self, from: BrickId, wanted: &RangesRequest, sink: &mut dyn FetchSink) -> Result<(), Reason> {
        let peer = self.peer(from).map_err(|e| e.reason())?;
        self.runtime.block_on(self.ranges_of(&peer, wanted, sink))
    }

    fn newest(&self, from: BrickId, file: FileId) -> Result<Option<Object>, Reason> {
        if self.wait_for(from).is_some() {
            return Err(Reason::Unreachable);
        }
        let sound = |reply: &Option<Object>| match reply {
            Some(object) => object.check(file).map_err(|_| "an object that makes no sense"),
            None => Ok(()),
        };
        let request = NewestRequest { file };
        // It may have much to write to its disk first.
        match self.runtime.block_on(self.ask(from, "newest", &request, self.patience.read, sound)) {
            Ok(object) => Ok(object),
            // An agent that is older than this request.
            Err(CallError::Refused(StatusCode::NOT_FOUND, _)) => Ok(None),
            Err(error) => Err(error.reason()),
        }
    }

    fn keep(
        &self,
        bricks: &[BrickId],
        wanted: usize,
        request: &KeepRequest,
        limit: Duration,
    ) -> Vec<(BrickId, Result<(), Reason>)> {
        self.runtime.block_on(async {
            let mut asked: FuturesUnordered<_> = bricks
                .iter()
                .map(|brick| async move {
                    let answer = tokio::time::timeout(limit, self.keep_at(*brick, request, limit)).await;
                    (*brick, answer.unwrap_or(Err(Reason::Unreachable)))
                })
                .collect();
            let mut done: Vec<(BrickId, Result<(), Reason>)> = Vec::new();
            while done.iter().filter(|(_, kept)| kept.is_ok()).count() < wanted
                && let Some(answer) = asked.next().await
            {
                done.push(answer);
            }
            done
        })
    }

    fn is_reached(&self, brick: BrickId) -> bool {
        self.is_up(brick)
    }

    fn order(&self, from: &mut [BrickId]) {
        let ordered = self.ordered(from, ORDER_BYTES);
        from.copy_from_slice(&ordered);
    }

    fn hint(&self) {
        self.hints.send_modify(|n| *n = n.wrapping_add(1));
    }
}

/// Cuts `items` to what one request may ask for, in number and in bytes.
fn batches(items: &[FetchItem]) -> impl Iterator<Item = &[FetchItem]> {
    let mut rest = items;
    std::iter::from_fn(move || {
        let mut bytes = 16;
        let n = rest
            .iter()
            .take(wire::MAX_FETCH)
            .take_while(|item| {
                // An id, a count, and at most 20 bytes for each counter.
                bytes += 32 + 20 * item.version.len();
                bytes <= wire::MAX_REQUEST
            })
            .count()
            .max(1)
            .min(rest.len());
        let (batch, later) = rest.split_at(n);
        rest = later;
        (!batch.is_empty()).then_some(batch)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use nearbrick_core::Incarnation;

    #[test]
    fn a_long_fetch_is_cut_to_what_a_request_may_ask_for() {
        let small = FetchItem { file: FileId([1; 16]), version: VersionVector::new().bumped(Incarnation(1)) };
        let big = FetchItem {
            version: (1..=4096).map(|n| (Incarnation(u64::MAX - n), u64::MAX)).collect(),
            ..small.clone()
        };
        let mut items = vec![small.clone(); wire::MAX_FETCH + 10];
        items.extend(vec![big; 100]);
        items.push(small);
        let cut: Vec<_> = batches(&items).collect();
        assert_eq!(cut.concat(), items);
        for batch in &cut {
            assert!(!batch.is_empty() && batch.len() <= wire::MAX_FETCH);
            assert!(wire::encode(&FetchRequest { items: batch.to_vec() }).len() <= wire::MAX_REQUEST);
        }
        assert_eq!(batches(&[]).count(), 0);
    }
}

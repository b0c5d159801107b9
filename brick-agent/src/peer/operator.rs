//! What the operator asks for people: `POST /v2/operator/volumes/VOLUME/bricks/BRICK`, a question ([`files::Ask`]) and its answer
//! ([`files::Answer`]), both JSON. Nobody but the operator may ask so, and it may ask nothing else: it gets lists, never bytes of a file.

use std::sync::Arc;

use nearbrick_core::BrickId;
use nearbrick_crds::files;
use tokio::sync::Semaphore;
use uuid::Uuid;
use warp::http::{HeaderValue, StatusCode, header};
use warp::reply::Response;
use warp::{Filter, filters::BoxedFilter};

use super::routes::{PeerNode, Refusal, Shared, closing, collect, text};
use super::{Refused, Served};

/// The longest question: two paths, escaped.
const MAX_QUESTION: usize = 64 << 10;
/// Questions that are answered at a time. More are refused: people can ask again.
const QUESTIONS: usize = 16;

/// The filter that answers the operator.
pub(super) fn route(shared: Arc<Shared>) -> BoxedFilter<(Response,)> {
    let slots = Arc::new(Semaphore::new(QUESTIONS));
    let state = warp::any().map(move || (shared.clone(), slots.clone()));
    warp::post()
        .and(warp::path!("v2" / "operator" / "volumes" / Uuid / "bricks" / BrickId))
        .and(warp::ext::get::<PeerNode>())
        .and(warp::header::optional::<u64>("content-length"))
        .and(warp::body::stream())
        .and(state)
        .then(|volume, brick, peer: PeerNode, length, body, (shared, slots): (Arc<Shared>, Arc<Semaphore>)| async move {
            let answered = async {
                let served = authorised(&shared, &peer, volume, brick)?;
                let _slot = slots.try_acquire().map_err(|_| closing("too much is asked at once: ask again"))?;
                let too_big =
                    || Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "a question over its bound");
                let body = collect(length, body, MAX_QUESTION, &too_big).await?;
                let ask: files::Ask = serde_json::from_slice(&body)
                    .map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "a question that cannot be read"))?;
                let answer = tokio::task::spawn_blocking(move || served.inquire(ask)).await;
                answer.map_err(|_| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the request failed"))
            };
            match answered.await {
                Ok(answer) => reply(answer),
                Err(Refusal(status, why)) => {
                    shared.stats.refused();
                    tracing::debug!(from = %peer, %volume, %brick, %status, "refused: {why}");
                    text(status, why)
                }
            }
        })
        .boxed()
}

fn authorised(
    shared: &Shared,
    peer: &PeerNode,
    volume: Uuid,
    brick: BrickId,
) -> Result<Arc<dyn Served>, Refusal> {
    if *peer != PeerNode::Operator {
        return Err(Refusal::new(StatusCode::FORBIDDEN, format!("{peer} is not the operator")));
    }
    let Some(served) = shared.registry.get(volume) else {
        return Err(closing(&format!("volume {volume} is not open here")));
    };
    if served.brick() != brick {
        let why = format!("this is brick {}, not {brick}", served.brick());
        return Err(Refusal::new(StatusCode::MISDIRECTED_REQUEST, why));
    }
    Ok(served)
}

fn reply(answer: Result<files::Answer, Refused>) -> Response {
    let answer = answer.unwrap_or_else(|Refused(why, line)| files::Answer::Refused { why, line });
    match serde_json::to_vec(&answer) {
        Ok(bytes) => {
            let mut response = Response::new(bytes.into());
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, json);
            response
        }
        Err(error) => {
            text(StatusCode::INTERNAL_SERVER_ERROR, format!("the answer cannot be written: {error}"))
        }
    }
}

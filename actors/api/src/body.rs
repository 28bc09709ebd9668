//! Reading a request body under limits.

use std::pin::pin;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::{Stream, StreamExt};

use crate::context::Context;
use crate::error::ApiError;

/// Time for a body after its headers.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// How much of a refused body is still taken in, and for how long: a client that is cut off while it sends often
/// never sees the answer.
const POLITE_BYTES: u64 = 16 << 20;
const POLITE_TIME: Duration = Duration::from_secs(2);

/// The whole body, when it is plainly encoded and no larger than `limit`.
pub(crate) async fn read<S, B, E>(context: &Context, limit: u64, body: S) -> Result<Bytes, ApiError>
where
    S: Stream<Item = Result<B, E>>,
    B: Buf,
{
    if !context.is_plainly_encoded() {
        return Err(ApiError::encoding());
    }
    let mut body = pin!(body);
    if context.content_length().is_some_and(|length| length > limit) {
        return Err(too_large(limit, body).await);
    }
    let outcome = tokio::time::timeout(BODY_TIMEOUT, collect(limit, body.as_mut())).await;
    match outcome {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(Broken::TooLarge)) => Err(too_large(limit, body).await),
        Ok(Err(Broken::Read)) => Err(ApiError::body_broken()),
        Err(_) => Err(ApiError::body_too_slow()),
    }
}

enum Broken {
    TooLarge,
    Read,
}

async fn collect<S, B, E>(limit: u64, mut body: S) -> Result<Bytes, Broken>
where
    S: Stream<Item = Result<B, E>> + Unpin,
    B: Buf,
{
    let mut first = Bytes::new();
    let mut more = BytesMut::new();
    while let Some(part) = body.next().await {
        let mut part = part.map_err(|_| Broken::Read)?;
        if (first.len() + more.len() + part.remaining()) as u64 > limit {
            return Err(Broken::TooLarge);
        }
        // Most bodies come in one part, which is then used as it is.
        if first.is_empty() {
            first = part.copy_to_bytes(part.remaining());
        } else {
            more.put(part);
        }
    }
    if more.is_empty() {
        return Ok(first);
    }
    let mut whole = BytesMut::with_capacity(first.len() + more.len());
    whole.extend_from_slice(&first);
    whole.extend_from_slice(&more);
    Ok(whole.freeze())
}

/// Takes some more of the body in, then refuses it.
async fn too_large<S, B, E>(limit: u64, mut body: S) -> ApiError
where
    S: Stream<Item = Result<B, E>> + Unpin,
    B: Buf,
{
    let drain = async {
        let mut taken = 0u64;
        while let Some(Ok(part)) = body.next().await {
            taken += part.remaining() as u64;
            if taken > POLITE_BYTES {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(POLITE_TIME, drain).await;
    ApiError::body_too_large(limit)
}

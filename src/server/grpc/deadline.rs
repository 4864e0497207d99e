//! The layer of every service: the deadlines of calls, and the code of a message that is too large.
//!
//! The transport honours `grpc-timeout` only until the headers of the answer, and says CANCELLED then; a stream would
//! never end. Here the deadline is fixed when the call comes in, calls end with DEADLINE_EXCEEDED, and streams find it
//! in the extensions of their request.

use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;
use tonic::{Code, Request, Status};

use crate::server::{bounds, refusal};

/// When the caller stops waiting; `None` for never.
#[derive(Debug, Clone, Copy)]
struct Deadline(Option<Instant>);

/// When the caller of a request stops waiting; `None` for never.
pub(super) fn deadline<T>(request: &Request<T>) -> Option<Instant> {
    request.extensions().get::<Deadline>().and_then(|deadline| deadline.0)
}

/// A service whose calls end at their deadlines.
#[derive(Debug, Clone)]
pub(super) struct Deadlines<S>(pub(super) S);

impl<S: NamedService> NamedService for Deadlines<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<http::Request<Body>> for Deadlines<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<http::Response<Body>, Infallible>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let timeout = request.headers().get("grpc-timeout").and_then(|value| parse(value.to_str().ok()?));
        let deadline =
            timeout.and_then(|timeout| Instant::now().checked_add(timeout.saturating_sub(bounds::TIMER_STEP)));
        request.extensions_mut().insert(Deadline(deadline));
        let answer = self.0.call(request);
        Box::pin(async move {
            let Some(deadline) = deadline else { return answer.await.map(recode) };
            tokio::select! {
                biased;
                answer = answer => answer.map(recode),
                () = tokio::time::sleep_until(deadline) => Ok(Status::from(refusal::deadline()).into_http()),
            }
        })
    }
}

/// Gives a message that is too large its right code.
fn recode(answer: http::Response<Body>) -> http::Response<Body> {
    // The transport says OUT_OF_RANGE where gRPC says RESOURCE_EXHAUSTED. A status among the headers means that there
    // is no body.
    match Status::from_header_map(answer.headers()) {
        Some(status) if status.code() == Code::OutOfRange => {
            Status::from(refusal::oversize(status.message())).into_http()
        }
        _ => answer,
    }
}

/// Up to eight digits and a unit, as the gRPC protocol says.
fn parse(text: &str) -> Option<Duration> {
    let (value, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if value.is_empty() || value.len() > 8 || !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = value.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A service that says what it was asked to, if anything.
    #[derive(Clone)]
    struct Answers(Option<Status>);

    impl Service<http::Request<Body>> for Answers {
        type Response = http::Response<Body>;
        type Error = Infallible;
        type Future = BoxFuture<http::Response<Body>, Infallible>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: http::Request<Body>) -> Self::Future {
            match self.0.clone() {
                Some(status) => Box::pin(std::future::ready(Ok(status.into_http()))),
                None => Box::pin(std::future::pending()),
            }
        }
    }

    async fn code(answer: Option<Status>) -> Code {
        let request = http::Request::builder().header("grpc-timeout", "20m").body(Body::empty()).unwrap();
        let answer = Deadlines(Answers(answer)).call(request).await.unwrap();
        Status::from_header_map(answer.headers()).unwrap().code()
    }

    #[tokio::test]
    async fn a_call_ends_at_its_deadline_and_says_so() {
        assert_eq!(code(None).await, Code::DeadlineExceeded);
    }

    #[tokio::test]
    async fn only_the_code_of_an_oversize_message_is_changed() {
        assert_eq!(code(Some(Status::out_of_range("too large"))).await, Code::ResourceExhausted);
        assert_eq!(code(Some(Status::not_found("nothing"))).await, Code::NotFound);
    }

    #[test]
    fn timeouts_are_read_as_the_protocol_says() {
        assert_eq!(parse("1500m"), Some(Duration::from_millis(1500)));
        assert_eq!(parse("2H"), Some(Duration::from_secs(7200)));
        for wrong in ["", "S", "5", "5x", "-5S", "123456789S", "5 S", "5ü"] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }
}

//! How a refusal is rendered as a problem document (RFC 9457).

use std::collections::BTreeMap;

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use crate::api::reason;
use crate::server::refusal::{Class, Refusal};

/// A refusal on its way out.
#[derive(Debug)]
pub(super) struct Problem(pub(super) Refusal);

/// The members of a problem document, in the order in which they are written.
#[derive(Serialize)]
struct Document {
    /// Where the reason is explained.
    r#type: String,
    /// The reason in words.
    title: String,
    status: u16,
    /// What happened, and what to do.
    detail: String,
    /// One of [`reason`].
    reason: &'static str,
    /// Whether the same request may succeed later.
    retryable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    /// The parts of the request that are to blame.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<BlamedField>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
struct BlamedField {
    pointer: String,
    detail: String,
}

fn status(class: Class, reason: &str) -> StatusCode {
    match (class, reason) {
        (Class::Invalid, reason::EVENT_TOO_LARGE | reason::TOO_LARGE | reason::TOO_MANY_EVENTS)
        | (Class::Exhausted, reason::TOO_LARGE) => StatusCode::PAYLOAD_TOO_LARGE,
        (Class::Invalid, reason::SCHEMA_MISMATCH) => StatusCode::UNPROCESSABLE_ENTITY,
        (Class::Invalid, reason::UNKNOWN_METHOD) => StatusCode::METHOD_NOT_ALLOWED,
        (Class::Invalid, _) => StatusCode::BAD_REQUEST,
        (Class::NotFound, _) => StatusCode::NOT_FOUND,
        (Class::Precondition, reason::POSITION_EXPIRED) => StatusCode::GONE,
        (Class::Precondition | Class::Conflict, _) | (Class::DataLoss, reason::POSITION_LOST) => StatusCode::CONFLICT,
        (Class::Exhausted, reason::DISK_FULL) | (Class::Unavailable, _) => StatusCode::SERVICE_UNAVAILABLE,
        (Class::Exhausted, _) => StatusCode::TOO_MANY_REQUESTS,
        (Class::Unauthenticated, _) => StatusCode::UNAUTHORIZED,
        (Class::Forbidden, _) => StatusCode::FORBIDDEN,
        (Class::TimedOut, _) => StatusCode::GATEWAY_TIMEOUT,
        (Class::Unsupported, _) => StatusCode::NOT_IMPLEMENTED,
        (Class::Internal | Class::DataLoss, _) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Refusal { class, reason, message, fields, metadata, retry_after, is_outcome_unknown } = self.0;
        let status = status(class, reason);
        let words = reason.to_lowercase();
        let retryable = retry_after.is_some() || matches!(class, Class::Unavailable | Class::TimedOut);
        let document = Document {
            r#type: format!("/problems/{}", words.replace('_', "-")),
            title: words.replace('_', " "),
            status: status.as_u16(),
            errors: fields
                .into_iter()
                .map(|field| BlamedField { pointer: pointer(&field), detail: message.clone() })
                .collect(),
            detail: message,
            reason,
            retryable,
            retry_after_ms: retry_after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
            outcome: is_outcome_unknown.then_some("unknown"),
            metadata,
        };
        let mut response = (status, axum::Json(document)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(after) = retry_after {
            // Whole seconds, rounded up.
            headers.insert(
                RETRY_AFTER,
                after.as_millis().div_ceil(1_000).max(1).to_string().parse().unwrap_or(HeaderValue::from_static("1")),
            );
        }
        if class == Class::Unauthenticated {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"wattle\""));
        }
        response
    }
}

/// A field such as `events[3].id` as a JSON pointer.
fn pointer(field: &str) -> String {
    let mut pointer = String::new();
    for part in field.split(['.', '[']).map(|part| part.trim_end_matches(']')).filter(|part| !part.is_empty()) {
        pointer.push('/');
        pointer.push_str(&part.replace('~', "~0").replace('/', "~1"));
    }
    pointer
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_field_is_a_json_pointer() {
        for (field, expected) in
            [("events[3]", "/events/3"), ("filter.reason", "/filter/reason"), ("a/b~c", "/a~1b~0c")]
        {
            assert_eq!(pointer(field), expected);
        }
    }

    #[tokio::test]
    async fn a_problem_has_all_of_its_refusal() {
        let refusal = Refusal {
            class: Class::Exhausted,
            reason: reason::BUSY,
            message: "more waits than may".to_owned(),
            fields: vec!["events[0]".to_owned()],
            metadata: [("topic", "shop/orders".to_owned())].into(),
            retry_after: Some(Duration::from_millis(1_001)),
            is_outcome_unknown: true,
        };
        let response = Problem(refusal).into_response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers().get(RETRY_AFTER).unwrap(), "2");
        assert_eq!(response.headers().get(CONTENT_TYPE).unwrap(), "application/problem+json");
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        let document: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let expected = serde_json::json!({
            "type": "/problems/busy", "title": "busy", "status": 429, "detail": "more waits than may", "reason": "BUSY",
            "retryable": true, "retry_after_ms": 1001, "outcome": "unknown",
            "errors": [{ "pointer": "/events/0", "detail": "more waits than may" }],
            "metadata": { "topic": "shop/orders" },
        });
        assert_eq!(document, expected);
    }
}

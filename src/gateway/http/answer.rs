//! Responses of HTTP, and errors as etcd's JSON has them.

use bytes::Bytes;
use http_body_util::Full;
use serde::Serialize;
use tonic::body::Body;
use tonic::codegen::http::{HeaderValue, Response, StatusCode, header};
use tonic::{Code, Status};

pub(super) const TEXT_TYPE: &str = "text/plain; charset=utf-8";
pub(super) const JSON_TYPE: &str = "application/json";

/// An error of a request.
#[derive(Serialize)]
struct Refusal<'a> {
    error: &'a str,
    message: &'a str,
    code: i32,
}

/// An error that ends a stream.
#[derive(Serialize)]
struct End<'a> {
    error: EndError<'a>,
}

#[derive(Serialize)]
struct EndError<'a> {
    grpc_code: i32,
    http_code: u16,
    message: &'a str,
    http_status: &'a str,
}

/// A response of some type.
pub(super) fn text(
    status: StatusCode,
    content_type: &'static str,
    content: impl Into<Bytes>,
) -> Response<Body> {
    response(status, content_type, Body::new(Full::new(content.into())))
}

/// A response that is JSON already.
pub(super) fn json_text(status: StatusCode, content: impl Into<Bytes>) -> Response<Body> {
    text(status, JSON_TYPE, content)
}

/// A response that comes in pieces of JSON.
pub(super) fn stream(status: StatusCode, body: Body) -> Response<Body> {
    response(status, JSON_TYPE, body)
}

fn response(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// The path is there, and to be asked by `method` only.
pub(super) fn not_allowed(method: &'static str) -> Response<Body> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, TEXT_TYPE, "Method Not Allowed\n");
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(method));
    response
}

/// Why a request was refused.
pub(super) fn error(why: &Status) -> Response<Body> {
    let (text, code) = (why.message(), i32::from(why.code()));
    json_text(http_status(why.code()), to_json(&Refusal { error: text, message: text, code }))
}

/// Why a stream did not begin.
pub(super) fn stream_error(why: &Status) -> Response<Body> {
    json_text(http_status(why.code()), stream_end(why))
}

/// The last line of a stream that ends with an error.
pub(super) fn stream_end(why: &Status) -> Bytes {
    let http = http_status(why.code());
    let mut line = to_json(&End {
        error: EndError {
            grpc_code: i32::from(why.code()),
            http_code: http.as_u16(),
            message: why.message(),
            http_status: http.canonical_reason().unwrap_or_default(),
        },
    });
    line.push(b'\n');
    line.into()
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("texts and numbers can be written")
}

/// What grpc-gateway makes of a code in the version that is in etcd 3.5.
fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::Cancelled => StatusCode::REQUEST_TIMEOUT,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
            StatusCode::BAD_REQUEST
        }
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

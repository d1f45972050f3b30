//! Why an origin did not say whether there is a value.

use std::error::Error;
use std::io;
use std::iter::successors;

use hyper::StatusCode;

/// Why, in words for a log. Holds nothing of keys, tokens and values.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// No request can be made of the key.
    #[error("the key {0}")]
    Key(&'static str),
    /// There was no connection in time.
    #[error("timed out connecting")]
    ConnectTimeout,
    /// There is no connection.
    #[error("{}", root(.0.as_ref()))]
    Connect(#[source] Box<dyn Error + Send + Sync>),
    /// There was no answer, or not all of one.
    #[error("{}", root(.0))]
    Exchange(#[from] hyper::Error),
    /// A request cannot be built.
    #[error("{0}")]
    Request(#[from] hyper::http::Error),
    /// The origin did not answer what it was asked for.
    #[error("{}", phrase(*.0))]
    Status(StatusCode),
    /// A redirect that is not followed; says why.
    #[error("{} {}, which is not followed", phrase(*.0), .1)]
    Redirect(StatusCode, &'static str),
    /// One redirect too many.
    #[error("more than {0} redirects")]
    Redirects(usize),
    /// The value is larger than allowed.
    #[error("a value of more than {0} bytes")]
    TooLarge(usize),
    /// This origin is being shut down.
    #[error("no longer in use")]
    Ended,
}

/// What an origin says that would not answer about another key, either.
const OF_ALL_KEYS: [StatusCode; 4] = [
    StatusCode::UNAUTHORIZED,
    StatusCode::PROXY_AUTHENTICATION_REQUIRED,
    StatusCode::REQUEST_TIMEOUT,
    StatusCode::TOO_MANY_REQUESTS,
];

impl Cause {
    /// Whether other keys do well: the origin has answered, and could not or would not serve this one. A key that cannot be
    /// asked for ([`Cause::Key`]) is none of these.
    pub fn is_of_the_key(&self) -> bool {
        match self {
            Self::TooLarge(_) | Self::Redirect(..) | Self::Redirects(_) => true,
            Self::Status(status) => status.is_client_error() && !OF_ALL_KEYS.contains(status),
            _ => false,
        }
    }

    /// There is no connection: one of its addresses may have taken all the time by itself.
    pub fn connecting(error: impl Error + Send + Sync + 'static) -> Self {
        let timed_out = |error: &io::Error| error.kind() == io::ErrorKind::TimedOut;
        let mut errors = successors(Some(&error as &(dyn Error + 'static)), |error| inner(*error));
        if errors.any(|error| error.downcast_ref().is_some_and(timed_out)) {
            return Self::ConnectTimeout;
        }
        Self::Connect(Box::new(error))
    }
}

fn phrase(status: StatusCode) -> String {
    format!("{} {}", status.as_str(), status.canonical_reason().unwrap_or_default()).trim_end().to_owned()
}

/// What the innermost error says, without the system's number: libraries wrap it in where it happened.
fn root(error: &(dyn Error + 'static)) -> String {
    let innermost = successors(Some(error), |error| inner(*error)).last();
    let text = innermost.unwrap_or(error).to_string();
    let text = text.split(" (os error ").next().unwrap_or_default();
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_ascii_lowercase().to_string() + chars.as_str())
}

/// The error in an error; `io::Error` calls one its source only if it is one further in.
fn inner<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>() {
        Some(error) => error.get_ref().map(|inner| inner as &(dyn Error + 'static)),
        None => error.source(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_refused_says_nothing_of_others() {
        let is_of_the_key =
            |status| Cause::Status(StatusCode::from_u16(status).expect("valid")).is_of_the_key();
        assert!([400, 403, 405, 414, 422, 451].into_iter().all(is_of_the_key));
        assert!(![401, 407, 408, 429, 500, 502, 503, 504, 304, 206].into_iter().any(is_of_the_key));
        assert!(Cause::Redirects(3).is_of_the_key() && !Cause::ConnectTimeout.is_of_the_key());
    }
}

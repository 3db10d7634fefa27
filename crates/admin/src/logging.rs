//! `/logging`: the levels of the log, and their change at run time, in Envoy's manner.

use http::{Method, StatusCode, request::Parts};

use crate::{
    Views,
    answer::{self, Answer},
    query::parameters,
};

/// Shows the levels; `POST /logging?level=info&proxy=debug` changes them first.
pub(crate) fn answer(views: &Views, request: &Parts) -> Answer {
    match request.method {
        Method::GET | Method::HEAD => {}
        Method::POST | Method::PUT => {
            let pairs = parameters(request.uri.query().unwrap_or_default());
            if let Err(message) = (views.set_levels)(&pairs) {
                return answer::refusal(StatusCode::BAD_REQUEST, &message);
            }
        }
        _ => return answer::not_allowed("GET, HEAD, POST, PUT"),
    }
    answer::json(StatusCode::OK, &(views.levels)())
}

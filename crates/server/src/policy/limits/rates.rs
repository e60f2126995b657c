//! How much is left of a minute's limits, as headers of an answer, under the names that OpenAI's have.

use axum::http::{HeaderName, HeaderValue};

use super::account::{Account, Unit};
use super::tally::Ask;
use super::window::{Period, Window};

const REQUESTS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-requests"),
    HeaderName::from_static("x-ratelimit-remaining-requests"),
    HeaderName::from_static("x-ratelimit-reset-requests"),
];
const TOKENS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-tokens"),
    HeaderName::from_static("x-ratelimit-remaining-tokens"),
    HeaderName::from_static("x-ratelimit-reset-tokens"),
];

/// All of them, for browsers.
pub(crate) fn rate_headers() -> impl Iterator<Item = HeaderName> {
    REQUESTS.into_iter().chain(TOKENS)
}

/// What is left of the limits of a minute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Rates {
    /// The limit, and what is left.
    requests: Option<(i64, i64)>,
    tokens: Option<(i64, i64)>,
    /// Seconds.
    reset: i64,
}

impl Rates {
    /// Of the limits of which least is left, where counters are `used` so far.
    pub(super) fn of(accounts: &[Account], asks: &[Ask], used: &[i64], now: i64) -> Self {
        let mut rates = Self::default();
        for ((account, ask), used) in accounts.iter().zip(asks).zip(used) {
            if account.period != Period::Minute {
                continue;
            }
            rates.reset = Window { start: ask.counter.start, end: ask.end }.seconds_left(now);
            let rate = if account.unit == Unit::Calls { &mut rates.requests } else { &mut rates.tokens };
            let left = (account.limit - used).max(0);
            if rate.is_none_or(|(_, least)| left < least) {
                *rate = Some((account.limit, left));
            }
        }
        rates
    }

    /// As headers.
    pub(crate) fn headers(self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let rates = [(REQUESTS, self.requests), (TOKENS, self.tokens)];
        rates.into_iter().filter_map(|(names, rate)| Some((names, rate?))).flat_map(move |(names, (limit, left))| {
            let reset = HeaderValue::try_from(format!("{}s", self.reset));
            let values = [limit.into(), left.into(), reset.unwrap_or(HeaderValue::from_static("60s"))];
            names.into_iter().zip(values)
        })
    }
}

//! Windows in which something is counted: fixed ones, so that every server that looks at a clock counts in the same.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

const SECOND: i64 = 1000;
const MINUTE: i64 = 60 * SECOND;
const DAY: i64 = 24 * 60 * MINUTE;

/// The longest that anybody is told to wait: some clients sleep for as long as they are told.
const LONGEST_WAIT: i64 = 60;

/// How long a window is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Period {
    /// A minute of the clock.
    Minute,
    /// A day, in UTC.
    Day,
    /// A month of the calendar, in UTC.
    Month,
}

/// A window, in milliseconds since 1970: from `start` to before `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) start: i64,
    pub(super) end: i64,
}

impl Period {
    /// As it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// The window that `now` is in, in milliseconds since 1970.
    pub(super) fn window(self, now: i64) -> Window {
        let of_length = |length: i64| {
            let start = now.div_euclid(length) * length;
            Window { start, end: start + length }
        };
        match self {
            Self::Minute => of_length(MINUTE),
            Self::Day => of_length(DAY),
            // Only a clock that is some thousand years off has no month.
            Self::Month => month(now).unwrap_or_else(|| of_length(30 * DAY)),
        }
    }
}

fn month(now: i64) -> Option<Window> {
    let day = TimeZone::UTC.to_datetime(Timestamp::from_millisecond(now).ok()?).date();
    let begin = |date: Date| Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp().as_millisecond());
    let next = day.last_of_month().tomorrow().ok()?;
    Some(Window { start: begin(day.first_of_month())?, end: begin(next)? })
}

impl Window {
    /// Whole seconds from `now` to its end.
    pub(super) fn seconds_left(self, now: i64) -> i64 {
        let left = self.end.saturating_sub(now).max(0);
        left.div_euclid(SECOND) + i64::from(left % SECOND > 0)
    }

    /// Seconds after which whoever was refused at `now` is to try again.
    pub(super) fn wait(self, now: i64) -> u16 {
        u16::try_from(self.seconds_left(now).clamp(1, LONGEST_WAIT)).unwrap_or(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_millisecond()
    }

    #[test]
    fn windows_are_those_of_the_clock_and_the_calendar() {
        for (period, now, start, end) in [
            (Period::Minute, "2026-02-28T23:59:59.999Z", "2026-02-28T23:59:00Z", "2026-03-01T00:00:00Z"),
            (Period::Minute, "2026-03-01T00:00:00Z", "2026-03-01T00:00:00Z", "2026-03-01T00:01:00Z"),
            (Period::Day, "2026-02-28T23:59:59.999Z", "2026-02-28T00:00:00Z", "2026-03-01T00:00:00Z"),
            (Period::Month, "2028-02-29T12:00:00Z", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"),
            (Period::Month, "2026-12-31T23:59:59.999Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"),
            (Period::Month, "2026-12-01T00:00:00Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"),
        ] {
            assert_eq!(period.window(at(now)), Window { start: at(start), end: at(end) }, "{period:?} {now}");
        }
    }

    #[test]
    fn nobody_waits_for_nothing_or_for_long() {
        let minute = |now: &str| Period::Minute.window(at(now)).wait(at(now));
        assert_eq!(minute("2026-02-28T23:59:00Z"), 60);
        assert_eq!(minute("2026-02-28T23:59:00.001Z"), 60);
        assert_eq!(minute("2026-02-28T23:59:59.001Z"), 1);
        let now = at("2026-02-02T00:00:00Z");
        assert_eq!(Period::Month.window(now).wait(now), 60);
        assert_eq!(Period::Day.window(now).wait(now + DAY + MINUTE), 1, "a window that has ended");
    }
}

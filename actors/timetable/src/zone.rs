//! Time zones: the data of the system, or else the copy in the binary.

use std::fmt;
use std::sync::LazyLock;

use chrono::{DateTime, NaiveDate, NaiveDateTime, SecondsFormat, TimeDelta, Utc};
use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone, TimeZoneDatabase};

/// No clock of any zone is further away from UTC.
const MORE_THAN_AN_OFFSET: TimeDelta = TimeDelta::hours(36);

/// The copy in the binary, for names that the files of the system lack.
static BUNDLED: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// A time zone. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

/// Why a text names no zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown time zone {0:?}: expected an IANA name such as Europe/Berlin")]
pub struct ZoneError(String);

/// A time during which the clocks of a zone keep their distance from UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub(crate) start: DateTime<Utc>,
    /// The first instant behind it.
    pub(crate) end: DateTime<Utc>,
    offset: TimeDelta,
}

impl Zone {
    /// The zone of an IANA name, in any case.
    ///
    /// # Errors
    /// There is no such zone.
    pub fn named(name: &str) -> Result<Self, ZoneError> {
        let known = |zone: &TimeZone| zone.iana_name().is_some() && !zone.is_unknown();
        let found = TimeZone::get(name.trim()).or_else(|_| BUNDLED.get(name.trim()));
        found.ok().filter(known).map(Self).ok_or_else(|| ZoneError(name.to_owned()))
    }

    /// UTC.
    #[must_use]
    pub fn utc() -> Self {
        Self(TimeZone::UTC)
    }

    /// The zone of the process: `TZ`, else that of the system, else UTC.
    #[must_use]
    pub fn of_this_machine() -> Self {
        let zone = TimeZone::try_system().ok().filter(|zone| !zone.is_unknown());
        Self(zone.unwrap_or(TimeZone::UTC))
    }

    /// What `TZ` says, when that names no zone: [`Self::of_this_machine`] is UTC then.
    #[must_use]
    pub fn misnamed() -> Option<String> {
        let name = std::env::var("TZ").ok().filter(|name| !name.is_empty())?;
        TimeZone::try_system().ok().filter(|zone| !zone.is_unknown()).is_none().then_some(name)
    }

    /// Its IANA name; `local` for one of this machine that has none.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.iana_name().unwrap_or("local")
    }

    /// What the clocks of the zone show at an instant.
    #[must_use]
    pub fn wall(&self, at: DateTime<Utc>) -> NaiveDateTime {
        at.naive_utc() + self.offset(at)
    }

    /// An instant in the zone, as RFC 3339 with its offset; in milliseconds, when it is no whole second.
    #[must_use]
    pub fn show(&self, at: DateTime<Utc>) -> String {
        let seconds = i32::try_from(self.offset(at).num_seconds()).unwrap_or(0);
        let digits = if at.timestamp_subsec_nanos() == 0 { SecondsFormat::Secs } else { SecondsFormat::Millis };
        match chrono::FixedOffset::east_opt(seconds) {
            Some(offset) => at.with_timezone(&offset).to_rfc3339_opts(digits, false),
            None => ductile_model::format_wire(at),
        }
    }

    /// How far the clocks of the zone are ahead of UTC.
    fn offset(&self, at: DateTime<Utc>) -> TimeDelta {
        let offset = timestamp(at).map_or(Offset::UTC, |at| self.0.to_offset(at));
        TimeDelta::seconds(i64::from(offset.seconds()))
    }

    /// The stretches from an instant on. The first starts there, the last never ends.
    pub(crate) fn stretches(&self, from: DateTime<Utc>) -> impl Iterator<Item = Stretch> {
        let first = self.stretch(from, self.offset(from));
        std::iter::successors(Some(first), |before| {
            (before.end < DateTime::<Utc>::MAX_UTC).then(|| self.stretch(before.end, self.offset(before.end)))
        })
    }

    fn stretch(&self, start: DateTime<Utc>, offset: TimeDelta) -> Stretch {
        let mut following = timestamp(start).into_iter().flat_map(|start| self.0.following(start));
        // Names and the reckoning of summer time change as well, without a shift of the clocks.
        let shift = following.find(|transition| i64::from(transition.offset().seconds()) != offset.num_seconds());
        let end = shift.and_then(|shift| DateTime::from_timestamp(shift.timestamp().as_second(), 0));
        Stretch { start, end: end.unwrap_or(DateTime::<Utc>::MAX_UTC), offset }
    }

    /// The first instant at which the clocks show this time or, when they never show it, a later one.
    #[must_use]
    pub fn first_instant_of(&self, wall: NaiveDateTime) -> DateTime<Utc> {
        let earliest = wall.and_utc().checked_sub_signed(MORE_THAN_AN_OFFSET).unwrap_or(DateTime::<Utc>::MIN_UTC);
        let shown = |stretch: Stretch| match wall.checked_sub_signed(stretch.offset) {
            Some(candidate) => Some(candidate.and_utc().max(stretch.start)).filter(|found| *found < stretch.end),
            None => None,
        };
        self.stretches(earliest).find_map(shown).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }

    /// The first instant of a day.
    #[must_use]
    pub fn start_of(&self, day: NaiveDate) -> DateTime<Utc> {
        self.first_instant_of(day.and_time(chrono::NaiveTime::MIN))
    }
}

impl Stretch {
    /// What the clocks would show at an instant, were it within the stretch.
    pub(crate) fn wall(&self, at: DateTime<Utc>) -> NaiveDateTime {
        let beyond = if self.offset < TimeDelta::zero() { NaiveDateTime::MIN } else { NaiveDateTime::MAX };
        at.naive_utc().checked_add_signed(self.offset).unwrap_or(beyond)
    }

    /// What the clocks show first.
    pub(crate) fn first_wall(&self) -> NaiveDateTime {
        self.wall(self.start)
    }

    /// What the clocks would show next at the end.
    pub(crate) fn end_wall(&self) -> NaiveDateTime {
        self.wall(self.end)
    }

    /// The instant within the stretch at which the clocks show this.
    pub(crate) fn instant(&self, wall: NaiveDateTime) -> Option<DateTime<Utc>> {
        let at = wall.checked_sub_signed(self.offset)?.and_utc();
        (self.start..self.end).contains(&at).then_some(at)
    }
}

fn timestamp(at: DateTime<Utc>) -> Option<Timestamp> {
    Timestamp::new(at.timestamp(), i32::try_from(at.timestamp_subsec_nanos()).unwrap_or(0).min(999_999_999)).ok()
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

//! From the face of the clock to instants: what a slot means when the clocks are put forward or back.

use chrono::{DateTime, Months, NaiveDateTime, TimeDelta, Utc};

use super::{Cron, whole_minute};
use crate::Zone;
use crate::zone::Stretch;

const MONTHS_AHEAD: Months = Months::new(50 * 12);
/// No shift is larger: no clock is as much as 26 hours away from UTC.
const LARGEST_SHIFT: TimeDelta = TimeDelta::hours(52);

/// The first instant at which the clocks show a slot.
pub(super) fn next_periodic(cron: &Cron, from: DateTime<Utc>, zone: &Zone) -> Option<DateTime<Utc>> {
    let limit = limit(from);
    let stretches = zone.stretches(from).take_while(|stretch| stretch.start <= limit);
    stretches.filter_map(|stretch| first_shown(cron, &stretch, stretch.first_wall(), limit)).next()
}

/// The first instant at which the clocks reach a slot for the first time: they show it, or they have just left it out.
///
/// A slot that was left out is reached at the next whole minute. One that comes twice has been reached before.
pub(super) fn next_fixed(cron: &Cron, from: DateTime<Utc>, zone: &Zone) -> Option<DateTime<Utc>> {
    let limit = limit(from);
    // Far enough back that nothing that was shown earlier matters.
    let start = from.checked_sub_signed(LARGEST_SHIFT).unwrap_or(DateTime::<Utc>::MIN_UTC);
    let mut reached = zone.wall(start);
    for stretch in zone.stretches(start).take_while(|stretch| stretch.start <= limit) {
        let first = stretch.first_wall();
        let Some(arrival) = whole_minute(first).and_then(|wall| stretch.instant(wall)) else { continue };
        if arrival >= from && cron.next_wall(reached, first).is_some() {
            return Some(arrival);
        }
        if stretch.end > from {
            let unseen = first.max(reached).max(stretch.wall(from));
            if let Some(found) = first_shown(cron, &stretch, unseen, limit) {
                return Some(found);
            }
        }
        reached = reached.max(stretch.end_wall());
    }
    None
}

fn limit(from: DateTime<Utc>) -> DateTime<Utc> {
    from.checked_add_months(MONTHS_AHEAD).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

/// The first slot that the clocks show within a stretch, from this time on.
fn first_shown(cron: &Cron, stretch: &Stretch, from: NaiveDateTime, limit: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let end = stretch.wall(limit).min(stretch.end_wall());
    stretch.instant(cron.next_wall(from, end)?)
}

use super::*;
use crate::{ChangeMode, Maintainer, ScheduleChanged, StoreError};

const PAUSE: fn() -> ScheduleChange = || ScheduleChange::Pause(Some("holidays".to_owned()));
const RESUME: ScheduleChange = ScheduleChange::Resume { rearm: false };
const REARM: ScheduleChange = ScheduleChange::Resume { rearm: true };

impl Timetable {
    fn change_in(&self, id: &str, change: &ScheduleChange, mode: ChangeMode) -> ScheduleChanged {
        let changed: Result<_, StoreError> = Maintainer::open(&self.site.path()).and_then(|mut maintainer| {
            maintainer.change_schedule(&self.due(id).entry, change, self.site.clock.now(), mode)
        });
        changed.unwrap()
    }

    fn change(&self, id: &str, change: &ScheduleChange) -> ScheduleChanged {
        self.change_in(id, change, ChangeMode::Apply)
    }
}

#[tokio::test]
async fn a_paused_schedule_stays_so_over_restart_and_reload_until_it_is_resumed() {
    let mut table = Timetable::of(vec![every("default", "1h")]).await;
    table.fires("default").await;
    table.ends(broken()).await;
    let changed = table.change("default", &PAUSE());
    let row = table.row("default").await;
    assert_eq!(changed, ScheduleChanged::Done(row.clone()));
    assert_eq!((row.status, row.reason.as_deref()), (ScheduleStatus::PausedManual, Some("holidays")));
    table = table.restart().await.reload(vec![every("default", "1h")]).await;
    table.site.advance(7200);
    assert_eq!(table.waits("default").await, SkipReason::Paused);
    assert_eq!(table.row("default").await, row);
    table.change("default", &RESUME);
    let row = table.row("default").await;
    assert_eq!((row.status, row.reason), (ScheduleStatus::Active, None));
    table.fires("default").await;
}

#[tokio::test]
async fn a_resumed_interval_keeps_a_time_to_come() {
    let mut table = Timetable::of(vec![every("default", "1h")]).await;
    table.fires("default").await;
    table.ends(broken()).await;
    let before = table.row("default").await;
    table.change("default", &PAUSE());
    table.site.advance(600);
    table.change("default", &RESUME);
    assert_eq!(table.row("default").await, before);
}

#[tokio::test]
async fn a_schedule_can_be_paused_before_it_was_ever_seen() {
    let table = Timetable::of(vec![every("default", "1h")]).await;
    table.change("default", &ScheduleChange::Pause(None));
    assert_eq!(table.waits("default").await, SkipReason::Paused);
    assert_eq!(table.jobs(), 0);
    table.change("default", &RESUME);
    table.fires("default").await;
}

#[tokio::test]
async fn one_that_has_run_for_good_can_not_be_paused_and_only_be_armed_again() {
    let mut table = Timetable::of(vec![at("at", "03:04:00"), with_command("sync", after("after", "5m"))]).await;
    table.fires("at").await;
    table.ends(succeeded()).await;
    table.waits("after").await;
    table.site.advance(300);
    table.fires("after").await;
    table.ends(succeeded()).await;
    let before = table.rows_as_stored();
    for id in ["at", "after"] {
        for change in [PAUSE(), RESUME] {
            assert_eq!(table.change(id, &change), ScheduleChanged::Exhausted);
        }
    }
    assert_eq!(table.rows_as_stored(), before);
    for id in ["at", "after"] {
        table.change(id, &REARM);
        assert_eq!(table.row(id).await.status, ScheduleStatus::Active);
    }
    table.fires("at").await;
    assert_eq!(table.waits("after").await, SkipReason::NotDue);
    table.site.advance(300);
    table.fires("after").await;
    assert_eq!((table.waits("at").await, table.waits("after").await), (SkipReason::Exhausted, SkipReason::Exhausted));
}

#[tokio::test]
async fn a_preview_tells_the_same_and_changes_nothing() {
    let mut table = Timetable::of(vec![every("default", "1h"), with_command("sync", at("at", "03:04:00"))]).await;
    let nothing = table.change_in("default", &PAUSE(), ChangeMode::Preview);
    assert!(matches!(nothing, ScheduleChanged::Done(row) if row.status == ScheduleStatus::PausedManual));
    assert!(table.rows_as_stored().is_empty());
    for id in ["default", "at"] {
        table.fires(id).await;
        table.ends(broken()).await;
    }
    for (id, change) in [("default", PAUSE()), ("default", RESUME), ("at", REARM)] {
        let before = table.rows_as_stored();
        let preview = table.change_in(id, &change, ChangeMode::Preview);
        assert_eq!(table.rows_as_stored(), before);
        assert_eq!(table.change(id, &change), preview);
    }
}

#[tokio::test]
async fn what_is_active_or_paused_already_stays_so() {
    let mut table = Timetable::of(vec![every("default", "1h")]).await;
    table.fires("default").await;
    table.ends(broken()).await;
    let active = table.row("default").await;
    table.change("default", &REARM);
    assert_eq!(table.row("default").await, active);
    table.change("default", &PAUSE());
    table.change("default", &ScheduleChange::Pause(Some("for longer".to_owned())));
    assert_eq!(table.row("default").await.reason.as_deref(), Some("for longer"));
}

//! Times at which things happen: cron schedules with a time zone, and windows made of them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A cron schedule in a time zone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "self.schedule.startsWith('@') || self.schedule.split(' ').filter(f, f != '').size() == 5",
        "message": "a cron schedule has five fields (minute hour day-of-month month day-of-week), for example \"0 18 * * 1-5\", or is one of @hourly, @daily, @weekly, @monthly, @yearly",
        "fieldPath": ".schedule"
    },
    {
        "rule": "!self.schedule.startsWith('@') || self.schedule in ['@hourly', '@daily', '@midnight', '@weekly', '@monthly', '@yearly', '@annually']",
        "message": "unknown nickname: write @hourly, @daily, @midnight, @weekly, @monthly, @yearly or @annually, or five fields such as \"0 18 * * 1-5\"",
        "fieldPath": ".schedule"
    }
]))]
pub struct CronSchedule {
    /// Five fields: minute, hour, day of month, month, day of week; or `@hourly`, `@daily`, `@weekly`,
    /// `@monthly`, `@yearly`.
    #[schemars(length(min = 1, max = 128))]
    pub schedule: String,
    /// IANA name of the time zone in which the schedule is read, for example `Europe/Berlin`. UTC if not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: Option<String>,
}

/// A window that opens at a schedule and stays open for a time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TimeWindow {
    /// When it opens.
    pub start: CronSchedule,
    /// How long it stays open, for example `8h`.
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-validations" = [{
        "rule": "self.matches('^([0-9]+([.][0-9]+)?(ms|s|m|h))+$')",
        "message": "write a duration such as 30s, 10m or 1h30m"
    }]))]
    pub duration: String,
}

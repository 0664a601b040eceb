//! Two days without Stripe, in virtual time: the real binaries see their wall clock moved on, by a library that is loaded
//! before them (`clock.c`, built here with the machine's C compiler); the cloud's clock and Stripe's are moved with it.
//! Nothing that is stored is touched.

use crate::{
    books::Books,
    kills::charged,
    support::{Client, cloud, report, subscribe, wide_plans},
};
use local::{
    clock::CloudClock,
    cloud::{Cloud, Options},
    stripe::{Fault, SignatureClock},
};
use std::{collections::BTreeMap, path::Path, process::Command, time::Duration};
use tempfile::TempDir;

const METER_EVENTS: &str = "/v1/billing/meter_events";
/// How often a reporter sends one row in one run.
const SENDS: u64 = 3;
/// The hours at which the reporter runs while Stripe is away: within the time in which a row may be sent again, then beyond it.
const EARLY_HOURS: [u64; 3] = [6, 13, 19];
const LATE_HOURS: [u64; 3] = [21, 34, 47];
const BACK_HOUR: u64 = 48;

/// The time of everybody in one cloud.
pub(crate) struct Time {
    directory: TempDir,
    clock: CloudClock,
}

impl Time {
    pub(crate) fn new() -> Self {
        let time = Self { directory: TempDir::new().unwrap(), clock: CloudClock::default() };
        time.write(0);
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("acceptance/clock.c");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(time.library())
            .arg(source)
            .status();
        assert!(built.unwrap().success(), "the C compiler refused clock.c");
        time
    }

    fn library(&self) -> std::path::PathBuf {
        self.directory.path().join("clock.so")
    }

    fn ahead(&self) -> std::path::PathBuf {
        self.directory.path().join("ahead_s")
    }

    /// A process may read at any moment, so that the file is replaced whole.
    fn write(&self, ahead_s: u64) {
        let new = self.directory.path().join("new");
        std::fs::write(&new, ahead_s.to_string()).unwrap();
        std::fs::rename(new, self.ahead()).unwrap();
    }

    /// Moves everybody to so many hours after the start.
    pub(crate) fn move_to(&self, cloud: &Cloud, hours: u64) {
        let ahead = Duration::from_hours(hours);
        self.write(ahead.as_secs());
        self.clock.set_ahead(ahead);
        cloud.stripe().unwrap().set_offset(i64::try_from(ahead.as_secs()).unwrap());
    }

    /// Has a cloud with these plans live by it.
    pub(crate) fn rule(&self, options: &mut Options, plans: &Path) {
        let variable =
            |name: &str, path: std::path::PathBuf| (name.to_owned(), path.to_str().unwrap().to_owned());
        options.extra.extend([variable("LD_PRELOAD", self.library()), variable("CLOCK_AHEAD", self.ahead())]);
        options.clock = self.clock.clone();
        options.stripe.signature_clock = SignatureClock::Stripe;
        options.plans = Some(plans.to_owned());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i2_i6_f09_f23_stripe_is_away_for_two_days_and_every_token_is_counted_once() {
    let (time, plans) = (Time::new(), wide_plans(16));
    let cloud = cloud(|options| time.rule(options, plans.path())).await;
    let stripe = cloud.stripe().unwrap();
    let mut customers = BTreeMap::new();
    for name in ["lost", "never", "late"] {
        let user = Client::new(&cloud, name).user;
        customers.insert(user.clone(), subscribe(&cloud, &user).await);
    }
    let mut used: BTreeMap<String, u64> = BTreeMap::new();
    let mut tokens = 10;
    let mut use_some = async |cloud: &Cloud, names: &[&str]| {
        for name in names {
            // A session lives for minutes: each is of its own hour.
            let client = Client::new(cloud, name);
            tokens += 1;
            *used.entry(client.user.clone()).or_default() += charged(&client, tokens).await;
        }
    };

    // Stripe counts one user's row, and its answer is lost; then it is gone, and another's row never arrives.
    use_some(&cloud, &["lost"]).await;
    stripe.fail_next_on(METER_EVENTS, 1, Fault::ErrorAfterCommit);
    stripe.fail_next_on(METER_EVENTS, 2, Fault::Status(503));
    let run = report(&cloud).await;
    assert_eq!(
        (&run["sent"], &run["accepted"], &run["failed"]),
        (&SENDS.into(), &0.into(), &1.into()),
        "{run}"
    );
    assert_eq!(stripe.meter_events().len(), 1);
    stripe.set_outage(true);
    use_some(&cloud, &["never", "free"]).await;
    report(&cloud).await;

    // Everybody goes on generating. Both rows are sent again, but only as long as Stripe is sure to know them again.
    for hour in EARLY_HOURS {
        time.move_to(&cloud, hour);
        use_some(&cloud, &["lost", "never", "free"]).await;
        let run = report(&cloud).await;
        assert_eq!((&run["sent"], &run["failed"]), (&(2 * SENDS).into(), &2.into()), "hour {hour}: {run}");
    }
    for hour in LATE_HOURS {
        time.move_to(&cloud, hour);
        use_some(&cloud, &["lost", "never", "free"]).await;
        let run = report(&cloud).await;
        assert_eq!(
            (&run["sent"], &run["failed"]),
            (&0.into(), &2.into()),
            "hour {hour}: sent blindly: {run}"
        );
    }
    use_some(&cloud, &["late"]).await;
    let run = report(&cloud).await;
    assert_eq!((&run["sent"], &run["failed"]), (&SENDS.into(), &3.into()), "{run}");
    assert_eq!(stripe.meter_events().len(), 1);

    // Stripe is back, and has forgotten every identifier. What it counted says which row it has.
    time.move_to(&cloud, BACK_HOUR);
    stripe.set_outage(false);
    let run = report(&cloud).await;
    assert_eq!(
        (&run["reconciled"], &run["unclear"], &run["failed"]),
        (&2.into(), &0.into(), &0.into()),
        "{run}"
    );
    // Four calls: the missing row, the late one, and what two users had used behind their rows; not the row that was counted.
    assert_eq!(
        (&run["sent"], &run["accepted"], &run["already_existed"]),
        (&4.into(), &4.into(), &0.into()),
        "{run}"
    );
    let quiet = report(&cloud).await;
    assert_eq!((&quiet["meters"], &quiet["sent"]), (&0.into(), &0.into()), "{quiet}");
    assert_eq!(Books::read(&cloud).balance(&cloud, &customers), used);
    cloud.shutdown().await;
}

//! One user's account, meters, receipts and report rows as a store would keep them, and every way to write to them in
//! any order: late, twice, on facts that are out of date, half. It decides nothing: decisions and transitions are the
//! domain's, and who asks for them here follows the order that a store's conditions impose.
//!
//! One thing is assumed, as the ledger does: an admission is written at most once, however late. All else repeats.

use crate::support::{HOLD_MS, cost_most, id, plan, price, tokens, used, user};
use domain::{
    Account, AccountChange, Admission, AdmitRequest, Billing, CustomerId, Demand, Hold, HoldId, Meter,
    Opening, Placement, Plan, Receipt, Refusal, ReportRow, RowFate, Seal, SubscriptionId, Timestamp,
};
use proptest::{prelude::*, sample::Index};
use std::collections::BTreeMap;

/// How many past copies of account and meter warm functions may still decide on.
const REMEMBERED_MAX: usize = 6;
/// By how much a clock lags at most, in milliseconds.
pub(crate) const LAG_MS_MAX: u64 = 2_000;
/// Steps of one random history.
const STEPS_MAX: usize = 70;

/// What became of an admission's one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Write {
    UnderWay,
    Applied,
    Refused,
}

#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) admission: Admission,
    /// What the deciding clock said.
    pub(crate) decided_at: Timestamp,
    pub(crate) write: Write,
}

/// How an account changes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    SpendCap(Option<u32>),
    /// A subscription began a while ago, or begins on Stripe's clock, which may be ahead of everybody's here.
    Subscribe {
        ahead_s: u64,
        ago_s: u64,
    },
    /// It ends; the period goes on or, with `anchored_anew`, a new one begins.
    Unsubscribe {
        anchored_anew: bool,
    },
    /// Another plan in the same period.
    Plan(Index),
    /// An invoice is unpaid, and has to be paid within so long; none: it was paid.
    Owe(Option<u64>),
}

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Wait(u64),
    /// Decide on facts that are `age` reads old, by a clock that lags, and write at once or later.
    Admit {
        demand: Demand,
        lag_ms: u64,
        age: usize,
        later: bool,
    },
    /// A write that was under way arrives.
    Land(Index),
    /// Settle any request that was ever admitted: in time, late, again with another figure. `half`: only the receipt.
    Settle {
        which: Index,
        used: (u32, u32),
        half: bool,
    },
    /// Void any request that was ever decided, its write known or not.
    Void {
        which: Index,
        half: bool,
    },
    Sweep {
        meter: Index,
        lag_ms: u64,
    },
    Report(Report),
    Change {
        change: Change,
        later: bool,
    },
    LandChange(Index),
}

/// What a reporter does.
#[derive(Clone, Debug)]
pub(crate) enum Report {
    /// Decide to seal; the write arrives at once or later, or again.
    Seal {
        meter: Index,
        later: bool,
    },
    LandSeal(Index),
    Attempt(Index),
    /// A row's fate is known: put its report item and, unless `half`, drop it.
    Finish {
        row: Index,
        fate: RowFate,
        half: bool,
    },
    Clear(Index),
    /// A person decides to send a row again; the write arrives at once or later, or again.
    Retry {
        row: Index,
        later: bool,
    },
    LandRetry(Index),
    Forgive(Index),
    /// Stripe rejects a row that it had taken, or is said to.
    Reject(Index),
    /// Usage from elsewhere is taken over; the write arrives at once or later, or again.
    Import {
        meter: Index,
        used: u32,
        fate: RowFate,
        later: bool,
    },
    LandImport(Index),
}

/// What one decision or write came to, with what it was decided on.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// Nothing was asked of the meter, or it did not answer: nothing may have changed but time and memory.
    Nothing,
    Opened,
    /// An admission's write arrived.
    Landed {
        at: usize,
        applied: bool,
    },
    Refused(Box<Refused>),
    /// A hold was to be released by the receipt that stands.
    Released {
        hold: Box<Hold>,
        receipt: Box<Receipt>,
        applied: bool,
    },
    Other,
}

#[derive(Clone, Debug)]
pub(crate) struct Refused {
    pub(crate) account: Account,
    pub(crate) meter: Meter,
    pub(crate) demand: Demand,
    pub(crate) now: Timestamp,
    pub(crate) refusal: Refusal,
}

#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) account: Account,
    /// By period start.
    pub(crate) meters: BTreeMap<Timestamp, Meter>,
    /// Period starts in the order in which their meters were opened.
    pub(crate) opened: Vec<Timestamp>,
    pub(crate) receipts: BTreeMap<(Timestamp, HoldId), Receipt>,
    pub(crate) reports: BTreeMap<(Timestamp, u64), (ReportRow, RowFate)>,
    pub(crate) sent: Vec<Sent>,
    pub(crate) clock: Timestamp,
    remembered: Vec<(Account, Meter)>,
    pub(crate) seals: Vec<(Timestamp, Seal)>,
    /// Decided retries: of which item, into which row.
    pub(crate) retries: Vec<(Timestamp, u64, ReportRow)>,
    /// Decided imports, each with the row that its report item is of.
    pub(crate) imports: Vec<(Receipt, ReportRow, RowFate)>,
    /// Every row that was ever sealed.
    pub(crate) rows: Vec<(Timestamp, ReportRow)>,
    pub(crate) changes: Vec<AccountChange>,
}

/// The plans that accounts are on: small enough that every limit is met.
pub(crate) fn plans() -> [Plan; 2] {
    [plan("free", 2_500, 3, 4), plan("pro", 6_000, 5, 6)]
}

pub(crate) fn plan_of(account: &Account) -> Plan {
    plans().into_iter().find(|plan| plan.id == account.plan).unwrap()
}

impl World {
    /// A user who was just seen for the first time, or one who just subscribed.
    pub(crate) fn new(subscribed: bool, now: Timestamp) -> Self {
        let mut account = Account::first_seen(user(), plans()[0].id.clone(), now);
        if subscribed {
            subscribe(&mut account);
        }
        let Opening { account, meter, predecessor } = Opening::first(account, now).unwrap();
        assert_eq!(predecessor, None);
        let start = meter.period.start();
        Self {
            remembered: vec![(account.clone(), meter.clone())],
            account,
            meters: BTreeMap::from([(start, meter)]),
            opened: vec![start],
            receipts: BTreeMap::new(),
            reports: BTreeMap::new(),
            sent: Vec::new(),
            clock: now,
            seals: Vec::new(),
            retries: Vec::new(),
            imports: Vec::new(),
            rows: Vec::new(),
            changes: Vec::new(),
        }
    }

    /// The meter that the account points to.
    pub(crate) fn current(&self) -> &Meter {
        &self.meters[&self.account.current]
    }

    fn meter_at(&self, which: Index) -> Timestamp {
        self.opened[which.index(self.opened.len())]
    }

    pub(crate) fn step(&mut self, op: &Op) -> Event {
        match op {
            Op::Wait(ms) => {
                self.clock = self.clock.plus_ms(*ms);
                Event::Nothing
            }
            Op::Admit { demand, lag_ms, age, later } => self.admit(*demand, *lag_ms, *age, *later),
            Op::Land(which) => pick(&self.sent, *which).map_or(Event::Nothing, |at| self.land(at)),
            Op::Settle { which, used: (input, output), half } => {
                let applied = |sent: &Sent| sent.write == Write::Applied;
                let Some(at) = pick_if(&self.sent, *which, applied) else { return Event::Nothing };
                let Admission { user, period_start, id, hold, .. } = self.sent[at].admission.clone();
                let usage = used(*input, *output);
                let receipt = Receipt::settled(user, period_start, (id, &hold), usage, &price(), self.clock);
                self.finish_request(receipt, &hold, *half)
            }
            Op::Void { which, half } => {
                let Some(at) = pick(&self.sent, *which) else { return Event::Nothing };
                let Admission { user, period_start, id, hold, .. } = self.sent[at].admission.clone();
                self.finish_request(Receipt::void(user, period_start, id, self.clock), &hold, *half)
            }
            Op::Sweep { meter, lag_ms } => {
                let start = self.meter_at(*meter);
                self.sweep(start, lagging(self.clock, *lag_ms))
            }
            Op::Report(report) => self.report(report),
            Op::Change { change, later } => {
                let change = AccountChange::new(self.account.clone(), self.changed(*change), self.current());
                self.changes.push(change);
                if *later { Event::Nothing } else { self.land_change(self.changes.len() - 1) }
            }
            Op::LandChange(which) => {
                pick(&self.changes, *which).map_or(Event::Nothing, |at| self.land_change(at))
            }
        }
    }

    fn admit(&mut self, demand: Demand, lag_ms: u64, age: usize, later: bool) -> Event {
        let now = lagging(self.clock, lag_ms);
        let current = (self.account.clone(), self.current().clone());
        self.remembered.push(current.clone());
        if self.remembered.len() > REMEMBERED_MAX {
            self.remembered.remove(0);
        }
        let newest_first = self.remembered.iter().rev();
        let (account, meter) = newest_first.clone().nth(age).cloned().unwrap_or(current);
        match domain::place(&account, &meter, now) {
            Placement::OutOfCalendar => panic!("out of the calendar at {now}"),
            Placement::Open(opening) => self.open(*opening),
            Placement::Current => {
                let number = u32::try_from(self.sent.len()).unwrap();
                let request = AdmitRequest { id: id(number), demand, expires_at: now.plus_ms(HOLD_MS) };
                match domain::admit(&account, &plan_of(&account), &meter, &request, cost_most, now) {
                    Err(refusal) => {
                        Event::Refused(Box::new(Refused { account, meter, demand, now, refusal }))
                    }
                    Ok(admission) => {
                        self.sent.push(Sent { admission, decided_at: now, write: Write::UnderWay });
                        if later { Event::Nothing } else { self.land(self.sent.len() - 1) }
                    }
                }
            }
        }
    }

    /// The transaction that opens a period: the account as it was read, no such meter yet, the predecessor closes.
    fn open(&mut self, opening: Opening) -> Event {
        let Opening { account, meter, predecessor } = opening;
        let predecessor = predecessor.unwrap();
        let start = meter.period.start();
        let as_read = self.account.rev == account.rev && self.account.current == predecessor.start;
        if !as_read || self.meters.contains_key(&start) {
            return Event::Nothing;
        }
        if !self.meters.get_mut(&predecessor.start).unwrap().apply_close(&predecessor.rate) {
            return Event::Nothing;
        }
        self.account = account;
        self.meters.insert(start, meter);
        self.opened.push(start);
        Event::Opened
    }

    /// An admission arrives for the first time, or a repeat of it while its hold is open.
    fn land(&mut self, at: usize) -> Event {
        let Sent { admission, write, .. } = &mut self.sent[at];
        let meter = self.meters.get_mut(&admission.period_start).unwrap();
        if *write != Write::UnderWay && !meter.holds.contains_key(&admission.id) {
            return Event::Nothing;
        }
        let applied = meter.apply_admission(admission);
        if *write == Write::UnderWay {
            *write = if applied { Write::Applied } else { Write::Refused };
        }
        Event::Landed { at, applied }
    }

    /// Puts a receipt unless there is one, then moves the meter by the one that stands.
    fn finish_request(&mut self, receipt: Receipt, hold: &Hold, half: bool) -> Event {
        let key = (receipt.period_start, receipt.id.clone());
        let standing = self.receipts.entry(key).or_insert(receipt).clone();
        if half {
            return Event::Nothing;
        }
        let release = standing.release(hold);
        let applied = self.meters.get_mut(&standing.period_start).unwrap().apply_release(&release);
        Event::Released { hold: Box::new(hold.clone()), receipt: Box::new(standing), applied }
    }

    pub(crate) fn sweep(&mut self, start: Timestamp, now: Timestamp) -> Event {
        let meter = &self.meters[&start];
        let user = meter.user.clone();
        let expired = meter.expired(now);
        for (id, hold) in expired {
            assert!(hold.expires_at <= now, "a live hold was to be swept");
            let receipt = Receipt::swept(user.clone(), start, (id, &hold), now);
            self.finish_request(receipt, &hold, false);
        }
        Event::Other
    }

    fn report(&mut self, report: &Report) -> Event {
        match report {
            Report::Seal { meter, later } => {
                let start = self.meter_at(*meter);
                let Some(seal) = domain::seal(&self.meters[&start], self.clock) else {
                    return Event::Nothing;
                };
                assert!(self.meters[&start].period.contains(seal.row.timestamp), "F11: outside its period");
                self.seals.push((start, seal));
                if !later {
                    self.land_seal(self.seals.len() - 1);
                }
            }
            Report::LandSeal(which) => {
                if let Some(at) = pick(&self.seals, *which) {
                    self.land_seal(at);
                }
            }
            Report::Attempt(which) => {
                if let Some(at) = pick(&self.rows, *which) {
                    let (start, row) = &self.rows[at];
                    self.meters.get_mut(start).unwrap().apply_attempt(row.seq, self.clock, 0);
                }
            }
            Report::Finish { row, fate, half } => {
                if let Some(at) = pick(&self.rows, *row) {
                    self.finish_row(at, *fate, *half);
                }
            }
            Report::Retry { row, later } => {
                if let Some(at) = pick(&self.rows, *row) {
                    self.retry_row(at, *later);
                }
            }
            Report::LandRetry(which) => {
                if let Some(at) = pick(&self.retries, *which) {
                    self.land_retry(at);
                }
            }
            Report::Forgive(row) => {
                if let Some((_, fate)) = self.item_mut(*row).filter(|(_, fate)| *fate == RowFate::Parked) {
                    *fate = RowFate::Forgiven;
                }
            }
            Report::Reject(row) => self.reject_row(*row),
            Report::Import { meter, used, fate, later } => {
                let start = self.meter_at(*meter);
                self.import(start, *used, *fate, *later);
            }
            Report::LandImport(which) => {
                if let Some(at) = pick(&self.imports, *which) {
                    self.land_import(at);
                }
            }
            Report::Clear(meter) => {
                let start = self.meter_at(*meter);
                self.meters.get_mut(&start).unwrap().apply_clear();
            }
        }
        Event::Other
    }

    fn land_seal(&mut self, at: usize) {
        let (start, seal) = &self.seals[at];
        if self.meters.get_mut(start).unwrap().apply_seal(seal) {
            self.rows.push((*start, seal.row.clone()));
        }
    }

    fn finish_row(&mut self, at: usize, fate: RowFate, half: bool) {
        let (start, row) = self.rows[at].clone();
        let (_, standing) = *self.reports.entry((start, row.seq)).or_insert((row.clone(), fate));
        if !half {
            self.meters.get_mut(&start).unwrap().apply_drop(row.seq, standing);
        }
    }

    /// The report item of some row that was ever sealed, if it has one.
    fn item_mut(&mut self, row: Index) -> Option<&mut (ReportRow, RowFate)> {
        let (start, row) = &self.rows[pick(&self.rows, row)?];
        self.reports.get_mut(&(*start, row.seq))
    }

    fn retry_row(&mut self, at: usize, later: bool) {
        let (start, row) = &self.rows[at];
        let Some((item, fate)) = self.reports.get(&(*start, row.seq)) else { return };
        let meter = &self.meters[start];
        let whose = (meter.user.clone(), *start);
        let item = domain::Report::of(whose, item, *fate, self.clock, None);
        let Some(again) = domain::retry(meter, &item, self.clock) else { return };
        assert!(meter.period.contains(again.timestamp), "F11: outside its period");
        self.retries.push((*start, row.seq, again));
        if !later {
            self.land_retry(self.retries.len() - 1);
        }
    }

    /// The transaction that retries: the item is parked, and the meter has no row and the number that was read.
    fn land_retry(&mut self, at: usize) {
        let (start, seq, row) = self.retries[at].clone();
        let item = self.reports.get_mut(&(start, seq));
        let Some((_, fate)) =
            item.filter(|(item, fate)| *fate == RowFate::Parked && item.tokens == row.tokens)
        else {
            return;
        };
        if self.meters.get_mut(&start).unwrap().apply_retry(&row) {
            *fate = RowFate::Retried;
            self.rows.push((start, row));
        }
    }

    /// The transaction that rejects: the item is accepted, and its row is not pending any more.
    fn reject_row(&mut self, row: Index) {
        let Some(at) = pick(&self.rows, row) else { return };
        let (start, row) = &self.rows[at];
        let Some((_, fate)) = self.reports.get_mut(&(*start, row.seq)) else { return };
        let meter = self.meters.get_mut(start).unwrap();
        if *fate == RowFate::Accepted && meter.apply_reject(row.seq, row.tokens) {
            *fate = RowFate::Parked;
        }
    }

    fn import(&mut self, start: Timestamp, used: u32, fate: RowFate, later: bool) {
        let meter = &self.meters[&start];
        let Some(customer) = meter.customer.clone() else { return };
        let name = format!("import-{}", self.imports.len());
        let row = ReportRow {
            seq: meter.seq,
            customer,
            identifier: name.clone(),
            tokens: tokens(used),
            timestamp: meter.period.clamp_s(self.clock),
            first_attempt_at: None,
            last_attempt_at: None,
            fence: 0,
        };
        let id = HoldId::parse(&name).unwrap();
        let receipt = Receipt::imported(user(), start, id, tokens(used), self.clock);
        self.imports.push((receipt, row, fate));
        if !later {
            self.land_import(self.imports.len() - 1);
        }
    }

    /// The transaction that imports: neither receipt nor item is there, and the meter has the number that was read.
    fn land_import(&mut self, at: usize) {
        let (receipt, row, fate) = self.imports[at].clone();
        let start = receipt.period_start;
        let (receipt_key, report_key) = ((start, receipt.id.clone()), (start, row.seq));
        if self.receipts.contains_key(&receipt_key) || self.reports.contains_key(&report_key) {
            return;
        }
        let report = domain::Report::of((user(), start), &row, fate, self.clock, None);
        if self.meters.get_mut(&start).unwrap().apply_import(&receipt, &report, Billing::Metered) {
            self.receipts.insert(receipt_key, receipt);
            self.reports.insert(report_key, (row.clone(), fate));
            self.rows.push((start, row));
        }
    }

    fn changed(&self, change: Change) -> Account {
        let mut after = self.account.clone();
        match change {
            Change::SpendCap(cap) => after.spend_cap = cap.map(tokens),
            Change::Subscribe { ahead_s, ago_s } => {
                subscribe(&mut after);
                after.anchor = Timestamp::from_s(self.clock.s() + ahead_s - ago_s);
            }
            Change::Unsubscribe { anchored_anew } => {
                after.plan = plans()[0].id.clone();
                after.subscription = None;
                after.anchor = if anchored_anew { self.clock.floor_s() } else { after.anchor };
            }
            Change::Owe(within_ms) => after.pay_by = within_ms.map(|ms| self.clock.plus_ms(ms)),
            Change::Plan(which) => after.plan = plans()[which.index(2)].id.clone(),
        }
        after
    }

    /// The transaction that changes account and current meter: both as they were read.
    fn land_change(&mut self, at: usize) -> Event {
        let change = &self.changes[at];
        let before = &change.before;
        if self.account.rev != before.rev || self.account.current != before.current {
            return Event::Nothing;
        }
        assert!(self.meters.get_mut(&before.current).unwrap().apply_account(change), "the revisions differ");
        self.account = change.after.clone();
        Event::Other
    }

    /// Everything comes to rest: writes under way arrive or die, holds expire and are swept, rows are accepted.
    pub(crate) fn rest(&mut self) {
        for at in 0..self.sent.len() {
            if self.sent[at].write == Write::UnderWay {
                self.land(at);
            }
        }
        self.clock = self.clock.plus_ms(HOLD_MS + LAG_MS_MAX);
        for start in self.opened.clone() {
            self.sweep(start, self.clock);
            for _ in 0..2 {
                let pending = self.meters[&start].pending.clone();
                if let Some(row) = pending {
                    let at = self.rows.iter().position(|(of, sealed)| (*of, sealed.seq) == (start, row.seq));
                    self.finish_row(at.unwrap(), RowFate::Accepted, false);
                }
                if let Some(seal) = domain::seal(&self.meters[&start], self.clock) {
                    self.seals.push((start, seal));
                    self.land_seal(self.seals.len() - 1);
                }
            }
            assert!(self.meters.get_mut(&start).unwrap().apply_clear(), "a meter at rest is not clean");
        }
    }
}

fn subscribe(account: &mut Account) {
    account.plan = plans()[1].id.clone();
    account.customer = Some(CustomerId::parse("cus_1").unwrap());
    account.subscription = Some(SubscriptionId::parse("sub_1").unwrap());
}

pub(crate) fn lagging(clock: Timestamp, lag_ms: u64) -> Timestamp {
    Timestamp::from_ms(clock.ms() - lag_ms)
}

fn pick<T>(of: &[T], which: Index) -> Option<usize> {
    pick_if(of, which, |_| true)
}

fn pick_if<T>(of: &[T], which: Index, wanted: impl Fn(&T) -> bool) -> Option<usize> {
    let wanted: Vec<usize> = (0..of.len()).filter(|at| wanted(&of[*at])).collect();
    (!wanted.is_empty()).then(|| wanted[which.index(wanted.len())])
}

fn demand() -> impl Strategy<Value = Demand> {
    let size = || prop_oneof![2 => 1_u32..60, 1 => 1_u32..900];
    (size(), size(), 1_u32..200).prop_map(|(prompt, output, least)| Demand {
        prompt_most: tokens(prompt),
        prompt_least: tokens(prompt.div_ceil(3)),
        output_most: tokens(output),
        output_least: tokens(least.min(output)),
    })
}

fn wait() -> impl Strategy<Value = u64> {
    const DAY_MS: u64 = 86_400_000;
    prop_oneof![
        5 => 0_u64..2_000,
        3 => 2_000_u64..25_000,
        2 => HOLD_MS - 1_000..HOLD_MS + 3_000,
        1 => DAY_MS..40 * DAY_MS,
    ]
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => proptest::option::of(0_u32..3_000).prop_map(Change::SpendCap),
        2 => (0_u64..3).prop_map(|ahead_s| Change::Subscribe { ahead_s, ago_s: 0 }),
        1 => (0_u64..3_000_000).prop_map(|ago_s| Change::Subscribe { ahead_s: 0, ago_s }),
        1 => any::<bool>().prop_map(|anchored_anew| Change::Unsubscribe { anchored_anew }),
        1 => any::<Index>().prop_map(Change::Plan),
        1 => prop_oneof![1 => (0_u64..5_000).prop_map(Some), 2 => Just(None)].prop_map(Change::Owe),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let index = any::<Index>;
    let seldom = || prop::bool::weighted(0.25);
    let end = || prop_oneof![3 => Just(RowFate::Accepted), 4 => Just(RowFate::Parked), 2 => Just(RowFate::Invoiced)];
    let lag = || prop_oneof![2 => Just(0), 1 => 0..=LAG_MS_MAX];
    prop_oneof![
        6 => wait().prop_map(Op::Wait),
        16 => (demand(), lag(), prop_oneof![3 => Just(0), 1 => 0..REMEMBERED_MAX], seldom())
            .prop_map(|(demand, lag_ms, age, later)| Op::Admit { demand, lag_ms, age, later }),
        3 => index().prop_map(Op::Land),
        8 => (index(), prop_oneof![2 => (0_u32..60, 0_u32..60), 1 => (0_u32..900, 0_u32..900)], seldom())
            .prop_map(|(which, used, half)| Op::Settle { which, used, half }),
        3 => (index(), seldom()).prop_map(|(which, half)| Op::Void { which, half }),
        2 => (index(), lag()).prop_map(|(meter, lag_ms)| Op::Sweep { meter, lag_ms }),
        5 => (index(), seldom()).prop_map(|(meter, later)| Op::Report(Report::Seal { meter, later })),
        1 => index().prop_map(|which| Op::Report(Report::LandSeal(which))),
        1 => index().prop_map(|which| Op::Report(Report::Attempt(which))),
        6 => (index(), end(), seldom()).prop_map(|(row, fate, half)| Op::Report(Report::Finish { row, fate, half })),
        7 => (index(), seldom()).prop_map(|(row, later)| Op::Report(Report::Retry { row, later })),
        1 => index().prop_map(|which| Op::Report(Report::LandRetry(which))),
        2 => index().prop_map(|row| Op::Report(Report::Forgive(row))),
        1 => index().prop_map(|row| Op::Report(Report::Reject(row))),
        1 => (index(), 1_u32..900, end(), seldom()).prop_map(|(meter, used, fate, later)| {
            Op::Report(Report::Import { meter, used, fate, later })
        }),
        1 => index().prop_map(|which| Op::Report(Report::LandImport(which))),
        1 => index().prop_map(|which| Op::Report(Report::Clear(which))),
        2 => (change(), seldom()).prop_map(|(change, later)| Op::Change { change, later }),
        1 => index().prop_map(Op::LandChange),
    ]
}

/// A random history of one user, who began as a subscriber or not.
#[derive(Clone, Debug)]
pub(crate) struct History {
    pub(crate) subscribed: bool,
    pub(crate) ops: Vec<Op>,
}

/// Any [`History`] of at most [`STEPS_MAX`] steps.
pub(crate) fn history() -> impl Strategy<Value = History> {
    let ops = prop::collection::vec(op(), 1..=STEPS_MAX);
    (any::<bool>(), ops).prop_map(|(subscribed, ops)| History { subscribed, ops })
}

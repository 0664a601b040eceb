//! Stores, plans and requests for the tests.

use aws_sdk_dynamodb::{
    Client,
    config::{BehaviorVersion, Credentials, Region},
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::body::SdkBody;
use domain::{
    Classes, CustomerId, Demand, HoldId, ModelId, ModelPrice, Plan, PlanId, Plans, RateLimit, SubscriptionId,
    Timestamp, Tokens, Usage, UserId,
};
use ledger::{DynamoStore, Ledger, MemoryStore, Store};
use local::dynamo::{Dynamo, DynamoOptions, TableDefinition};
use std::{
    num::{NonZeroU16, NonZeroU32, NonZeroU64},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::runtime::Runtime;

/// 2026-11-24T11:00:00Z.
pub(crate) const T0: Timestamp = Timestamp::from_s(1_795_518_000);
pub(crate) const HOLD_MS: u64 = 360_000;

/// The endpoint of AWS's own DynamoDB Local, if there is one: `infra/check/dynamodb_local.sh` starts it.
const SECOND_OPINION: &str = "INKMETER_DYNAMODB_LOCAL_URL";
pub(crate) const TABLE: &str = "ledger";

/// One runtime and one embedded DynamoDB for the whole binary; every test takes users of its own.
pub(crate) struct World {
    pub(crate) runtime: Runtime,
    pub(crate) dynamo: Dynamo,
    pub(crate) store: DynamoStore,
    /// AWS's own, asked besides.
    pub(crate) second_opinion: Option<DynamoStore>,
}

pub(crate) fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let runtime = Runtime::new().unwrap();
        let (dynamo, store, second_opinion) = runtime.block_on(async {
            let table =
                TableDefinition::from_template(include_str!("../../../../infra/template.yaml")).unwrap();
            let second_opinion = match second_opinion() {
                Some(endpoint) => Some(create_table(&endpoint, &table).await),
                None => None,
            };
            let dynamo = Dynamo::start(&DynamoOptions {
                data: None,
                table_name: TABLE.to_owned(),
                table,
                // The tests' time stands still, and what they keep for a day is long past for whoever runs them later.
                sweep_every: Duration::from_hours(24),
            })
            .unwrap();
            let store = dynamo_store(&dynamo.endpoint());
            (dynamo, store, second_opinion)
        });
        World { runtime, dynamo, store, second_opinion }
    })
}

#[expect(clippy::disallowed_methods, reason = "where a test server is, is for the tests alone")]
fn second_opinion() -> Option<String> {
    std::env::var(SECOND_OPINION).ok()
}

fn client(endpoint: &str) -> Client {
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("local", "local", None, None, "tests"))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .endpoint_url(endpoint)
        .build();
    Client::from_conf(config)
}

/// A store with credentials that any local endpoint takes.
pub(crate) fn dynamo_store(endpoint: &str) -> DynamoStore {
    DynamoStore::new(client(endpoint), TABLE.to_owned())
}

/// Creates the template's table, in the template's own words.
async fn create_table(endpoint: &str, table: &TableDefinition) -> DynamoStore {
    let body = table.create_request(TABLE).to_string();
    let length = body.len().to_string();
    let said = move |request: &mut HttpRequest| {
        *request.body_mut() = SdkBody::from(body.clone());
        request.headers_mut().insert("content-length", length.clone());
    };
    client(endpoint).create_table().table_name(TABLE).customize().mutate_request(said).send().await.unwrap();
    dynamo_store(endpoint)
}

/// The two stand-ins for DynamoDB, each by its name, for what the ledger itself never sends.
pub(crate) fn clients() -> Vec<(&'static str, Client)> {
    let mut clients = vec![("embedded", client(&world().dynamo.endpoint()))];
    clients.extend(second_opinion().map(|endpoint| ("DynamoDB Local", client(&endpoint))));
    clients
}

/// The stores to hold against each other, each by its name: memory, embedded, and AWS's own where it is there.
pub(crate) fn stores() -> Vec<(&'static str, AnyStore)> {
    let world = world();
    let mut stores = vec![
        ("memory", AnyStore::Memory(MemoryStore::new())),
        ("embedded", AnyStore::Dynamo(world.store.clone())),
    ];
    stores
        .extend(world.second_opinion.iter().map(|store| ("DynamoDB Local", AnyStore::Dynamo(store.clone()))));
    stores
}

/// Runs one test on every store.
pub(crate) fn on_each<F>(test: impl Fn(AnyStore) -> F)
where
    F: Future<Output = ()>,
{
    for (_, store) in stores() {
        world().runtime.block_on(test(store));
    }
}

pub(crate) fn user() -> UserId {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    UserId::parse(&format!("user_{}", NEXT.fetch_add(1, Ordering::Relaxed))).unwrap()
}

pub(crate) fn new_id() -> HoldId {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    HoldId::parse(&format!("hold_{:06}", NEXT.fetch_add(1, Ordering::Relaxed))).unwrap()
}

pub(crate) fn t(tokens: u32) -> Tokens {
    Tokens::from_u32(tokens)
}

/// Free: 1,000 tokens, 20 requests a minute, 10 at once. Pro: 1,000 included, 5,000 at most, 400 a minute, 50 at once.
pub(crate) fn plans() -> Plans {
    let plan = |id: &str, cap: u32, requests: u32, concurrency: u16, overage: Option<u64>| Plan {
        id: PlanId::parse(id).unwrap(),
        price_cents: 0,
        included: t(1_000),
        cap: t(cap),
        overage_per_million: overage.and_then(NonZeroU64::new),
        rate: RateLimit {
            requests: NonZeroU32::new(requests).unwrap(),
            window_ms: NonZeroU64::new(60_000).unwrap(),
        },
        concurrency: NonZeroU16::new(concurrency).unwrap(),
    };
    Plans::new(vec![plan("free", 1_000, 20, 10, None), plan("pro", 5_000, 400, 50, Some(2_000_000_000))])
        .unwrap()
}

pub(crate) fn price() -> ModelPrice {
    let nano = |n| NonZeroU64::new(n).unwrap();
    ModelPrice {
        model: ModelId::parse("m").unwrap(),
        version: 1,
        input: nano(100_000_000),
        cached_input: nano(10_000_000),
        cache_write: nano(125_000_000),
        output: nano(500_000_000),
        output_max: t(4_096),
        reasoning_effort: None,
    }
}

/// A demand of exactly so many tokens that cannot be clamped.
pub(crate) fn demand(tokens: u32) -> Demand {
    let (prompt, output) = (t(tokens / 4), t(tokens - tokens / 4));
    Demand { prompt_most: prompt, prompt_least: prompt, output_most: output, output_least: output }
}

pub(crate) fn used(tokens: u32) -> Usage {
    Usage::Exact(Classes { input: t(tokens / 2), output: t(tokens - tokens / 2), ..Classes::default() })
}

pub(crate) fn customer() -> (CustomerId, SubscriptionId) {
    (CustomerId::parse("cus_1").unwrap(), SubscriptionId::parse("sub_1").unwrap())
}

/// Puts the user on the pro plan from `anchor` on.
pub(crate) async fn subscribe<S: Store>(ledger: &Ledger<S>, user: &UserId, anchor: Timestamp) {
    let (customer, subscription) = customer();
    ledger
        .change_account(user, anchor, |account| {
            let mut pro = account.clone();
            pro.plan = PlanId::parse("pro").unwrap();
            pro.customer = Some(customer.clone());
            pro.subscription = Some(subscription.clone());
            pro.anchor = anchor;
            Some(pro)
        })
        .await
        .unwrap();
}

macro_rules! any_store {
    ($(fn $name:ident(&self $(, $arg:ident: $type:ty)*) -> $answer:ty;)*) => {
        impl Store for AnyStore {
            $(async fn $name(&self $(, $arg: $type)*) -> $answer {
                match self {
                    Self::Memory(store) => store.$name($($arg),*).await,
                    Self::Dynamo(store) => store.$name($($arg),*).await,
                }
            })*
        }
    };
}

/// Any store.
#[derive(Clone)]
pub(crate) enum AnyStore {
    Memory(MemoryStore),
    Dynamo(DynamoStore),
}

use domain::{
    AccountChange, Admission, Attempt, Billing, Claim, Day, Denial, Digest, EventId, Lease, Level, Meter,
    Opening, Pool, Receipt, Release, Report, ReportRow, RowFate, Seal, SliceAnswer, SliceAsk,
};
use ledger::{
    AdmitAnswer, AdmitFailure, Changed, Cursor, Loaded, MeterKey, Page, ReceiptCursor, ReceiptPage,
    ReportCursor, ReportPage, StoreError, UserCursor, UserPage,
};

any_store! {
    fn load(&self, user: &UserId) -> Result<Option<Loaded>, StoreError>;
    fn meter(&self, key: &MeterKey) -> Result<Option<Meter>, StoreError>;
    fn open(&self, opening: &Opening) -> Result<Changed, StoreError>;
    fn change_account(&self, change: &AccountChange) -> Result<Changed, StoreError>;
    fn admit(&self, admission: &Admission) -> Result<AdmitAnswer, AdmitFailure>;
    fn put_receipt(&self, receipt: &Receipt) -> Result<Receipt, StoreError>;
    fn receipt(&self, key: &MeterKey, id: &HoldId) -> Result<Option<Receipt>, StoreError>;
    fn release(&self, release: &Release) -> Result<Changed, StoreError>;
    fn seal(&self, key: &MeterKey, seal: &Seal) -> Result<Changed, StoreError>;
    fn note_attempt(&self, key: &MeterKey, seq: u64, at: Timestamp, fence: u64) -> Result<Attempt, StoreError>;
    fn put_report(&self, key: &MeterKey, row: &ReportRow, fate: RowFate, at: Timestamp, note: Option<&str>) -> Result<RowFate, StoreError>;
    fn drop_row(&self, key: &MeterKey, row: &ReportRow, fate: RowFate) -> Result<Changed, StoreError>;
    fn clear(&self, key: &MeterKey) -> Result<Changed, StoreError>;
    fn dirty(&self, shard: u8, from: Option<&Cursor>) -> Result<Page, StoreError>;
    fn put_claim(&self, claim: &Claim, now: Timestamp) -> Result<Option<Claim>, StoreError>;
    fn change_claim(&self, claim: &Claim, owner: &HoldId) -> Result<Changed, StoreError>;
    fn drop_claim(&self, claim: &Claim) -> Result<Changed, StoreError>;
    fn claim(&self, user: &UserId, key: Digest) -> Result<Option<Claim>, StoreError>;
    fn put_stop(&self, user: &UserId, id: &HoldId, forget_at: Timestamp) -> Result<(), StoreError>;
    fn is_stopped(&self, user: &UserId, id: &HoldId) -> Result<bool, StoreError>;
    fn report(&self, key: &MeterKey, seq: u64) -> Result<Option<Report>, StoreError>;
    fn forgive(&self, key: &MeterKey, seq: u64, at: Timestamp, note: &str) -> Result<Changed, StoreError>;
    fn retry(&self, key: &MeterKey, seq: u64, row: &ReportRow, at: Timestamp) -> Result<Changed, StoreError>;
    fn reject(&self, key: &MeterKey, seq: u64, tokens: Tokens, at: Timestamp, note: &str) -> Result<Changed, StoreError>;
    fn import(&self, key: &MeterKey, receipt: &Receipt, report: &Report, billing: Billing) -> Result<Changed, StoreError>;
    fn users(&self, shard: u8, from: Option<&UserCursor>) -> Result<UserPage, StoreError>;
    fn meters(&self, user: &UserId, from: Timestamp) -> Result<Vec<Meter>, StoreError>;
    fn receipts(&self, user: &UserId, of: Option<Timestamp>, before: Option<&ReceiptCursor>) -> Result<ReceiptPage, StoreError>;
    fn reports(&self, user: &UserId, of: Option<Timestamp>, before: Option<&ReportCursor>) -> Result<ReportPage, StoreError>;
    fn put_denial(&self, denial: &Denial) -> Result<Changed, StoreError>;
    fn denials(&self, user: &UserId, period_start: Timestamp) -> Result<Vec<Denial>, StoreError>;
    fn put_event(&self, id: &EventId, kind: &str, at: Timestamp, forget_at: Timestamp) -> Result<Changed, StoreError>;
    fn event(&self, id: &EventId) -> Result<bool, StoreError>;
    fn take_lease(&self, customer: &CustomerId, owner: &HoldId, now: Timestamp, until: Timestamp) -> Result<Option<Lease>, StoreError>;
    fn drop_lease(&self, lease: &Lease) -> Result<Changed, StoreError>;
    fn lease_slice(&self, ask: &SliceAsk) -> Result<SliceAnswer, StoreError>;
    fn note_told(&self, day: Day, pool: Pool, level: Level) -> Result<Changed, StoreError>;
}

//! The port in DynamoDB: one request a method.
//!
//! An admission's write is one conditional `UpdateItem` and never part of a transaction: a transaction makes concurrent
//! plain writes of the item fail (see docs/adr/0001). The transactions here happen once a month (opening a meter), once a click
//! (changing an account), or when a person repairs something (a row that Stripe refused, usage from elsewhere).

use crate::{
    budget::forgotten_at,
    expression::{self, Expression, Slot},
    item::{self, Item, attr},
    page::{
        Cursor, METERS_MAX, PAGE_MAX, PAGE_READ_MAX, Page, ReceiptCursor, ReceiptPage, ReportCursor,
        ReportPage, UserCursor, UserPage, cut,
    },
    store::{AdmitAnswer, AdmitFailure, Changed, Fault, Loaded, MeterKey, Store, StoreError},
};
use aws_config::{BehaviorVersion, ConfigLoader, retry::RetryConfig, timeout::TimeoutConfig};
use aws_sdk_dynamodb::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    operation::{
        delete_item::DeleteItemError,
        put_item::PutItemError,
        query::QueryOutput,
        update_item::{UpdateItemError, builders::UpdateItemFluentBuilder},
    },
    types::{
        AttributeValue, CancellationReason, Put, ReturnValue, ReturnValuesOnConditionCheckFailure,
        TransactWriteItem, Update,
    },
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use domain::{
    AccountChange, Admission, Attempt, Billing, Claim, CustomerId, Day, Denial, Digest, EventId, HoldId,
    Lease, Level, Meter, Opening, Pool, Receipt, Release, Report, ReportRow, RowFate, Seal, SliceAnswer,
    SliceAsk, Timestamp, Tokens, UserId, bounded_note,
};
use std::{cmp::Reverse, error::Error, time::Duration};

/// How long a connection to DynamoDB may take, in milliseconds.
const CONNECT_MS_MAX: u64 = 1_000;
/// How long one try of one operation may take, in milliseconds.
const ATTEMPT_MS_MAX: u64 = 2_000;
/// How long one operation may take with all its tries, in milliseconds.
const OPERATION_MS_MAX: u64 = 6_000;
/// How often the SDK tries an operation that is harmless to repeat.
const ATTEMPTS_MAX: u32 = 3;
/// How often a void is decided anew while its rate window changes under it.
const SLOT_TRIES_MAX: u32 = 3;
/// Account and newest meter: what one `Query` reads.
const LOADED_ITEMS: i32 = 2;

/// Where the table is.
#[derive(Clone, Debug)]
pub struct DynamoSettings {
    /// The table's name.
    pub table: String,
    /// Another endpoint than the region's own, for a local table.
    pub endpoint: Option<String>,
}

/// A ledger's store in one DynamoDB table. Clones share its connections.
#[derive(Clone)]
pub struct DynamoStore {
    client: Client,
    table: String,
}

impl DynamoStore {
    /// A store with a client of its own: region and credentials from the AWS environment, rustls with ring.
    pub async fn connect(settings: DynamoSettings) -> Self {
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(aws_smithy_http_client::tls::Provider::Rustls(
                aws_smithy_http_client::tls::rustls_provider::CryptoMode::Ring,
            ))
            .build_https();
        Self::configured(aws_config::defaults(BehaviorVersion::latest()).http_client(http), settings).await
    }

    /// A store over a client that `loader` describes, but for how long it waits and how often it tries: that is decided
    /// here, so that whoever brings a connection of another kind still sends what a function would.
    pub async fn configured(loader: ConfigLoader, settings: DynamoSettings) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_millis(CONNECT_MS_MAX))
            .operation_attempt_timeout(Duration::from_millis(ATTEMPT_MS_MAX))
            .operation_timeout(Duration::from_millis(OPERATION_MS_MAX))
            .build();
        let mut loader = loader
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS_MAX))
            .timeout_config(timeouts);
        if let Some(endpoint) = settings.endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        Self::new(Client::new(&loader.load().await), settings.table)
    }

    /// A store over a client that was configured elsewhere.
    pub fn new(client: Client, table: String) -> Self {
        Self { client, table }
    }

    async fn update(
        &self,
        operation: &'static str,
        key: &MeterKey,
        e: Expression,
    ) -> Result<Changed, StoreError> {
        changed(operation, self.updating(key, e)).await
    }

    fn updating(&self, key: &MeterKey, e: Expression) -> UpdateItemFluentBuilder {
        self.updating_at(item::pk(&key.user), &item::meter_sk(key.period_start), e)
    }

    fn updating_at(&self, pk: AttributeValue, sk: &str, e: Expression) -> UpdateItemFluentBuilder {
        self.client
            .update_item()
            .table_name(&self.table)
            .key(attr::PK, pk)
            .key(attr::SK, item::s(sk))
            .set_update_expression(e.update())
            .condition_expression(e.condition())
            .set_expression_attribute_names(Some(e.names))
            .set_expression_attribute_values(some_unless_empty(e.values))
    }

    async fn transact(
        &self,
        operation: &'static str,
        items: Vec<TransactWriteItem>,
    ) -> Result<Changed, StoreError> {
        let sent = self.client.transact_write_items().set_transact_items(Some(items)).send().await;
        let Err(error) = sent else { return Ok(Changed::Yes) };
        let canceled = error.as_service_error().and_then(|service| match service {
            aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError::TransactionCanceledException(
                canceled,
            ) => Some(canceled.cancellation_reasons().to_vec()),
            _ => None,
        });
        let has = |code: &str, reasons: &[CancellationReason]| {
            reasons.iter().any(|reason| reason.code() == Some(code))
        };
        match canceled {
            Some(reasons) if has("ConditionalCheckFailed", &reasons) => Ok(Changed::No),
            Some(reasons) if has("TransactionConflict", &reasons) => {
                Err(StoreError::new(operation, Fault::Conflict).because(error))
            }
            Some(reasons)
                if has("ThrottlingError", &reasons) || has("ProvisionedThroughputExceeded", &reasons) =>
            {
                Err(StoreError::new(operation, Fault::Throttled).because(error))
            }
            _ => Err(failed(operation, error)),
        }
    }

    fn put(&self, item: Item, e: Expression) -> Result<TransactWriteItem, StoreError> {
        let put = Put::builder()
            .table_name(&self.table)
            .set_item(Some(item))
            .condition_expression(e.condition())
            .set_expression_attribute_names(Some(e.names))
            .set_expression_attribute_values(some_unless_empty(e.values))
            .build()
            .map_err(|error| StoreError::new("build put", Fault::Rejected).because(error))?;
        Ok(TransactWriteItem::builder().put(put).build())
    }

    fn update_in(&self, user: &UserId, sk: &str, e: Expression) -> Result<TransactWriteItem, StoreError> {
        let update = Update::builder()
            .table_name(&self.table)
            .key(attr::PK, item::pk(user))
            .key(attr::SK, item::s(sk))
            .set_update_expression(e.update())
            .condition_expression(e.condition())
            .set_expression_attribute_names(Some(e.names))
            .set_expression_attribute_values(some_unless_empty(e.values))
            .build()
            .map_err(|error| StoreError::new("build update", Fault::Rejected).because(error))?;
        Ok(TransactWriteItem::builder().update(update).build())
    }

    /// Puts an item unless its key is taken; answers the item that was there first.
    async fn put_once(&self, operation: &'static str, item: Item) -> Result<Option<Item>, StoreError> {
        match self.put_if(operation, item, expression::absent()).await? {
            None => Ok(None),
            Some(Refused { found }) => {
                found.map(Some).ok_or_else(|| StoreError::new(operation, Fault::Corrupt))
            }
        }
    }

    /// Puts an item on a condition; answers what it was held against where it did not hold.
    async fn put_if(
        &self,
        operation: &'static str,
        item: Item,
        e: Expression,
    ) -> Result<Option<Refused>, StoreError> {
        let sent = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(item))
            .condition_expression(e.condition())
            .set_expression_attribute_names(Some(e.names))
            .set_expression_attribute_values(some_unless_empty(e.values))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        let Err(error) = sent else { return Ok(None) };
        match error.as_service_error() {
            Some(PutItemError::ConditionalCheckFailedException(failure)) => {
                Ok(Some(Refused { found: failure.item().cloned() }))
            }
            _ => Err(failed(operation, error)),
        }
    }

    /// One of a user's items, as last written.
    async fn get(
        &self,
        operation: &'static str,
        user: &UserId,
        sk: &str,
    ) -> Result<Option<Item>, StoreError> {
        self.get_at(operation, item::pk(user), sk).await
    }

    /// A user's items whose sort keys begin alike, the last first, at most [`PAGE_READ_MAX`]: those before `before`, if it is
    /// given. What it is must begin alike.
    async fn backwards(
        &self,
        operation: &'static str,
        user: &UserId,
        begin: &str,
        before: Option<&str>,
    ) -> Result<QueryOutput, StoreError> {
        let start = before.map(|sk| {
            Item::from([(attr::PK.to_owned(), item::pk(user)), (attr::SK.to_owned(), item::s(sk))])
        });
        self.client
            .query()
            .table_name(&self.table)
            .consistent_read(true)
            .key_condition_expression("#pk = :pk AND begins_with(#sk, :begin)")
            .expression_attribute_names("#pk", attr::PK)
            .expression_attribute_names("#sk", attr::SK)
            .expression_attribute_values(":pk", item::pk(user))
            .expression_attribute_values(":begin", item::s(begin))
            .scan_index_forward(false)
            .limit(i32::from(PAGE_READ_MAX))
            .set_exclusive_start_key(start)
            .send()
            .await
            .map_err(|error| failed(operation, error))
    }

    /// A page of what the index lists under this key, from behind these keys on.
    async fn listed(
        &self,
        operation: &'static str,
        under: AttributeValue,
        behind: Option<(AttributeValue, AttributeValue)>,
    ) -> Result<QueryOutput, StoreError> {
        let start = behind.map(|(pk, sk)| {
            Item::from([
                (attr::DIRTY.to_owned(), under.clone()),
                (attr::PK.to_owned(), pk),
                (attr::SK.to_owned(), sk),
            ])
        });
        self.client
            .query()
            .table_name(&self.table)
            .index_name(attr::DIRTY)
            .key_condition_expression("#dirty = :shard")
            .expression_attribute_names("#dirty", attr::DIRTY)
            .expression_attribute_values(":shard", under)
            .limit(i32::from(PAGE_MAX))
            .set_exclusive_start_key(start)
            .send()
            .await
            .map_err(|error| failed(operation, error))
    }

    async fn get_at(
        &self,
        operation: &'static str,
        pk: AttributeValue,
        sk: &str,
    ) -> Result<Option<Item>, StoreError> {
        let found = self
            .client
            .get_item()
            .table_name(&self.table)
            .consistent_read(true)
            .key(attr::PK, pk)
            .key(attr::SK, item::s(sk))
            .send()
            .await
            .map_err(|error| failed(operation, error))?;
        Ok(found.item)
    }
}

impl Store for DynamoStore {
    async fn load(&self, user: &UserId) -> Result<Option<Loaded>, StoreError> {
        let found = self
            .client
            .query()
            .table_name(&self.table)
            .consistent_read(true)
            .key_condition_expression("#pk = :pk AND #sk BETWEEN :first AND :account")
            .expression_attribute_names("#pk", attr::PK)
            .expression_attribute_names("#sk", attr::SK)
            .expression_attribute_values(":pk", item::pk(user))
            .expression_attribute_values(":first", item::s(item::FIRST_METER))
            .expression_attribute_values(":account", item::s(item::ACCOUNT))
            .scan_index_forward(false)
            .limit(LOADED_ITEMS)
            .send()
            .await
            .map_err(|error| failed("load", error))?;
        let mut items = found.items().iter();
        let Some(account) = items.next().filter(|item| item::is_account(item)) else { return Ok(None) };
        let account = item::read_account(account)?;
        let newest = items.next().map(item::read_meter).transpose()?;
        if let Some(meter) = newest.filter(|meter| meter.period.start() == account.current) {
            return Ok(Some(Loaded { account, meter }));
        }
        // The two were read apart: the account before a period began, the newest meter after it.
        let key = MeterKey { user: user.clone(), period_start: account.current };
        let missing = || StoreError::new("load", Fault::Corrupt).because("an account points to no meter");
        let meter = self.meter(&key).await?.ok_or_else(missing)?;
        Ok(Some(Loaded { account, meter }))
    }

    async fn meter(&self, key: &MeterKey) -> Result<Option<Meter>, StoreError> {
        let found = self.get("read meter", &key.user, &item::meter_sk(key.period_start)).await?;
        found.map(|item| item::read_meter(&item)).transpose()
    }

    async fn open(&self, opening: &Opening) -> Result<Changed, StoreError> {
        let (account, meter) = (&opening.account, &opening.meter);
        let new_meter = self.put(item::write_new_meter(meter), expression::absent())?;
        let items = match &opening.predecessor {
            None => vec![self.put(item::write_account(account), expression::absent())?, new_meter],
            Some(predecessor) => {
                let to = expression::point_to(account.rev, predecessor.start, account.current);
                let old = item::meter_sk(predecessor.start);
                vec![
                    self.update_in(&account.user, item::ACCOUNT, to)?,
                    new_meter,
                    self.update_in(&account.user, &old, expression::close(predecessor))?,
                ]
            }
        };
        self.transact("open meter", items).await
    }

    async fn change_account(&self, change: &AccountChange) -> Result<Changed, StoreError> {
        let (before, user) = (&change.before, &change.before.user);
        let as_read = expression::account_as_read(before.rev, before.current);
        let items = vec![
            self.put(item::write_account(&change.after), as_read)?,
            self.update_in(
                user,
                &item::meter_sk(before.current),
                expression::account_on_meter(change, user),
            )?,
        ];
        self.transact("change account", items).await
    }

    async fn admit(&self, admission: &Admission) -> Result<AdmitAnswer, AdmitFailure> {
        let key = MeterKey { user: admission.user.clone(), period_start: admission.period_start };
        let sent = self
            .updating(&key, expression::admission(admission))
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .customize()
            .config_override(once())
            .send()
            .await;
        match sent {
            Ok(output) => output
                .attributes()
                .ok_or_else(|| StoreError::new("admit", Fault::Corrupt))
                .and_then(item::read_meter)
                .map(|meter| AdmitAnswer::Admitted(Box::new(meter)))
                .map_err(AdmitFailure::Unknown),
            Err(error) => {
                if let Some(Refused { found }) = refused(&error) {
                    let found = found.map(|item| item::read_meter(&item).map(Box::new)).transpose();
                    return found.map(AdmitAnswer::Stale).map_err(AdmitFailure::NotWritten);
                }
                let error = failed("admit", error);
                Err(match error.fault {
                    Fault::Throttled | Fault::Conflict | Fault::Rejected => AdmitFailure::NotWritten(error),
                    Fault::Unanswered | Fault::Corrupt | Fault::Contended => AdmitFailure::Unknown(error),
                })
            }
        }
    }

    async fn put_receipt(&self, receipt: &Receipt) -> Result<Receipt, StoreError> {
        match self.put_once("put receipt", item::write_receipt(receipt)).await? {
            None => Ok(receipt.clone()),
            Some(standing) => item::read_receipt(&standing),
        }
    }

    async fn receipt(&self, key: &MeterKey, id: &HoldId) -> Result<Option<Receipt>, StoreError> {
        let found = self.get("read receipt", &key.user, &item::receipt_sk(key.period_start, id)).await?;
        found.map(|item| item::read_receipt(&item)).transpose()
    }

    async fn release(&self, release: &Release) -> Result<Changed, StoreError> {
        let key = MeterKey { user: release.user.clone(), period_start: release.period_start };
        let window = release.hold.window;
        let mut slot = if release.returns_slot { Slot::Returned(window) } else { Slot::Kept };
        for _ in 0..SLOT_TRIES_MAX {
            let sent = self
                .updating(&key, expression::release(release, slot))
                .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
                .send()
                .await;
            let Err(error) = sent else { return Ok(Changed::Yes) };
            let Some(Refused { found }) = refused(&error) else { return Err(failed("release", error)) };
            let Some(meter) = found.map(|item| item::read_meter(&item)).transpose()? else {
                return Ok(Changed::No);
            };
            if !meter.holds.contains_key(&release.id) {
                return Ok(Changed::No);
            }
            // The hold is there, so it was the rate window that is not as assumed.
            let counted = meter.rate.counts.get(&window).is_some_and(|count| *count > 0);
            slot = if counted { Slot::Returned(window) } else { Slot::Gone(window) };
        }
        Err(StoreError::new("release", Fault::Contended))
    }

    async fn seal(&self, key: &MeterKey, seal: &Seal) -> Result<Changed, StoreError> {
        self.update("seal", key, expression::seal(seal)).await
    }

    async fn note_attempt(
        &self,
        key: &MeterKey,
        seq: u64,
        at: Timestamp,
        fence: u64,
    ) -> Result<Attempt, StoreError> {
        const OPERATION: &str = "note attempt";
        let sent = self
            .updating(key, expression::attempt(seq, at, fence))
            .return_values(ReturnValue::AllOld)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        match sent {
            Ok(output) => {
                let old = output.attributes().map(item::read_pending).transpose()?.flatten();
                let row = old.ok_or_else(|| StoreError::new(OPERATION, Fault::Corrupt))?;
                Ok(if row.first_attempt_at.is_none() { Attempt::First } else { Attempt::Again })
            }
            Err(error) => {
                let Some(Refused { found }) = refused(&error) else { return Err(failed(OPERATION, error)) };
                let row = found.as_ref().map(item::read_pending).transpose()?.flatten();
                let is_this = row.is_some_and(|row| row.seq == seq);
                Ok(if is_this { Attempt::Fenced } else { Attempt::Gone })
            }
        }
    }

    async fn put_report(
        &self,
        key: &MeterKey,
        row: &ReportRow,
        fate: RowFate,
        at: Timestamp,
        note: Option<&str>,
    ) -> Result<RowFate, StoreError> {
        let report = Report::of((key.user.clone(), key.period_start), row, fate, at, note);
        match self.put_once("put report", item::write_report(&report)).await? {
            None => Ok(fate),
            Some(standing) => item::read_fate(&standing),
        }
    }

    async fn report(&self, key: &MeterKey, seq: u64) -> Result<Option<Report>, StoreError> {
        let found = self.get("read report", &key.user, &item::report_sk(key.period_start, seq)).await?;
        found.map(|item| item::read_report(&item)).transpose()
    }

    async fn forgive(
        &self,
        key: &MeterKey,
        seq: u64,
        at: Timestamp,
        note: &str,
    ) -> Result<Changed, StoreError> {
        let note = bounded_note(note);
        let e = expression::move_report(RowFate::Parked, RowFate::Forgiven, None, at, Some(&note));
        let sk = item::report_sk(key.period_start, seq);
        changed("forgive", self.updating_at(item::pk(&key.user), &sk, e)).await
    }

    async fn retry(
        &self,
        key: &MeterKey,
        seq: u64,
        row: &ReportRow,
        at: Timestamp,
    ) -> Result<Changed, StoreError> {
        let moved = expression::move_report(RowFate::Parked, RowFate::Retried, Some(row.tokens), at, None);
        let on_meter = expression::retry(row, &key.user);
        let items = vec![
            self.update_in(&key.user, &item::report_sk(key.period_start, seq), moved)?,
            self.update_in(&key.user, &item::meter_sk(key.period_start), on_meter)?,
        ];
        self.transact("retry report", items).await
    }

    async fn reject(
        &self,
        key: &MeterKey,
        seq: u64,
        tokens: Tokens,
        at: Timestamp,
        note: &str,
    ) -> Result<Changed, StoreError> {
        let note = bounded_note(note);
        let moved =
            expression::move_report(RowFate::Accepted, RowFate::Parked, Some(tokens), at, Some(&note));
        let items = vec![
            self.update_in(&key.user, &item::report_sk(key.period_start, seq), moved)?,
            self.update_in(&key.user, &item::meter_sk(key.period_start), expression::reject(seq, tokens))?,
        ];
        self.transact("reject report", items).await
    }

    async fn import(
        &self,
        key: &MeterKey,
        receipt: &Receipt,
        report: &Report,
        billing: Billing,
    ) -> Result<Changed, StoreError> {
        if receipt.charged != report.tokens {
            return Ok(Changed::No);
        }
        let items = vec![
            self.put(item::write_receipt(receipt), expression::absent())?,
            self.put(item::write_report(report), expression::absent())?,
            self.update_in(
                &key.user,
                &item::meter_sk(key.period_start),
                expression::import(report, billing),
            )?,
        ];
        self.transact("import", items).await
    }

    async fn drop_row(&self, key: &MeterKey, row: &ReportRow, fate: RowFate) -> Result<Changed, StoreError> {
        self.update("drop row", key, expression::drop_row(row, fate)).await
    }

    async fn clear(&self, key: &MeterKey) -> Result<Changed, StoreError> {
        self.update("clear", key, expression::clear()).await
    }

    async fn dirty(&self, shard: u8, from: Option<&Cursor>) -> Result<Page, StoreError> {
        let behind =
            from.map(|Cursor(last)| (item::pk(&last.user), item::s(&item::meter_sk(last.period_start))));
        let found = self.listed("read dirty", item::shard(shard), behind).await?;
        let keys = found.items().iter().map(item::read_meter_key).collect::<Result<_, _>>()?;
        let next = found.last_evaluated_key().map(item::read_meter_key).transpose()?.map(Cursor);
        Ok(Page { keys, next })
    }

    async fn users(&self, shard: u8, from: Option<&UserCursor>) -> Result<UserPage, StoreError> {
        let behind = from.map(|UserCursor(last)| (item::pk(last), item::s(item::ACCOUNT)));
        let found = self.listed("list users", item::accounts_shard(shard), behind).await?;
        let users = found.items().iter().map(item::user_of).collect::<Result<_, _>>()?;
        let next = found.last_evaluated_key().map(item::user_of).transpose()?.map(UserCursor);
        Ok(UserPage { users, next })
    }

    async fn meters(&self, user: &UserId, from: Timestamp) -> Result<Vec<Meter>, StoreError> {
        let mut meters = Vec::new();
        let mut start = None;
        // One read answers a megabyte at most, which is less than this many meters can be.
        while meters.len() < usize::from(METERS_MAX) {
            let found = self
                .client
                .query()
                .table_name(&self.table)
                .consistent_read(true)
                .key_condition_expression("#pk = :pk AND #sk BETWEEN :from AND :last")
                .expression_attribute_names("#pk", attr::PK)
                .expression_attribute_names("#sk", attr::SK)
                .expression_attribute_values(":pk", item::pk(user))
                .expression_attribute_values(":from", item::s(&item::meter_sk_from(from)))
                .expression_attribute_values(":last", item::s(&item::meter_sk(Timestamp::MAX)))
                .scan_index_forward(false)
                .limit(i32::from(METERS_MAX))
                .set_exclusive_start_key(start)
                .send()
                .await
                .map_err(|error| failed("list meters", error))?;
            for item in found.items() {
                meters.push(item::read_meter(item)?);
            }
            match found.last_evaluated_key {
                Some(last) => start = Some(last),
                None => break,
            }
        }
        meters.truncate(usize::from(METERS_MAX));
        Ok(meters)
    }

    async fn receipts(
        &self,
        user: &UserId,
        of: Option<Timestamp>,
        before: Option<&ReceiptCursor>,
    ) -> Result<ReceiptPage, StoreError> {
        let before = match (of, before) {
            (Some(of), Some(cursor)) if cursor.period_start < of => return Ok(ReceiptPage::default()),
            (Some(of), Some(cursor)) if cursor.period_start > of => None,
            (_, before) => before.map(|cursor| item::receipt_sk(cursor.period_start, &cursor.id)),
        };
        let begin = item::receipts_of(of);
        let found = self.backwards("list receipts", user, &begin, before.as_deref()).await?;
        let mut receipts = found.items().iter().map(item::read_receipt).collect::<Result<Vec<_>, _>>()?;
        let more = cut(&mut receipts) || found.last_evaluated_key.is_some();
        let next = receipts.last().filter(|_| more).map(ReceiptCursor::after);
        Ok(ReceiptPage { receipts, next })
    }

    async fn reports(
        &self,
        user: &UserId,
        of: Option<Timestamp>,
        before: Option<&ReportCursor>,
    ) -> Result<ReportPage, StoreError> {
        let before = match (of, before) {
            (Some(of), Some(cursor)) if cursor.period_start < of => return Ok(ReportPage::default()),
            (Some(of), Some(cursor)) if cursor.period_start > of => None,
            (_, before) => before.map(|cursor| item::report_sk(cursor.period_start, cursor.seq)),
        };
        let begin = item::reports_of(of);
        let found = self.backwards("list reports", user, &begin, before.as_deref()).await?;
        let mut reports = found.items().iter().map(item::read_report).collect::<Result<Vec<_>, _>>()?;
        let more = cut(&mut reports) || found.last_evaluated_key.is_some();
        let next = reports.last().filter(|_| more).map(ReportCursor::after);
        Ok(ReportPage { reports, next })
    }

    async fn put_denial(&self, denial: &Denial) -> Result<Changed, StoreError> {
        let latest = expression::denial_is_the_latest(denial.at);
        let refused = self.put_if("put denial", item::write_denial(denial), latest).await?;
        Ok(refused.is_none().into())
    }

    async fn denials(&self, user: &UserId, period_start: Timestamp) -> Result<Vec<Denial>, StoreError> {
        let begin = item::denials_of(period_start);
        let found = self.backwards("list denials", user, &begin, None).await?;
        let read = found.items().iter().filter_map(|item| item::read_denial(item).transpose());
        let mut denials = read.collect::<Result<Vec<_>, _>>()?;
        denials.sort_by_key(|denial| (Reverse(denial.at), denial.code));
        Ok(denials)
    }

    async fn put_event(
        &self,
        id: &EventId,
        kind: &str,
        at: Timestamp,
        forget_at: Timestamp,
    ) -> Result<Changed, StoreError> {
        let standing = self.put_once("put event", item::write_event(id, kind, at, forget_at)).await?;
        Ok(standing.is_none().into())
    }

    async fn event(&self, id: &EventId) -> Result<bool, StoreError> {
        Ok(self.get_at("read event", item::event_pk(id), item::EVENT).await?.is_some())
    }

    async fn take_lease(
        &self,
        customer: &CustomerId,
        owner: &HoldId,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<Option<Lease>, StoreError> {
        const OPERATION: &str = "take lease";
        let sent = self
            .updating_at(item::lease_pk(customer), item::LEASE, expression::take_lease(owner, now, until))
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        let lease = match sent {
            Ok(output) => output.attributes().map(|item| item::read_lease(item, customer)),
            Err(error) => match refused(&error) {
                Some(Refused { found }) => found.as_ref().map(|item| item::read_lease(item, customer)),
                None => return Err(failed(OPERATION, error)),
            },
        };
        let lease = lease.ok_or_else(|| StoreError::new(OPERATION, Fault::Corrupt))??;
        // Refused because of itself: it was taken by a try whose answer was lost.
        Ok(lease.filter(|lease| lease.owner == *owner))
    }

    async fn drop_lease(&self, lease: &Lease) -> Result<Changed, StoreError> {
        let e = expression::drop_lease(lease);
        changed("drop lease", self.updating_at(item::lease_pk(&lease.customer), item::LEASE, e)).await
    }

    async fn lease_slice(&self, ask: &SliceAsk) -> Result<SliceAnswer, StoreError> {
        const OPERATION: &str = "lease slice";
        let Some(e) = expression::lease_slice(ask, forgotten_at(ask.day)) else {
            return Err(StoreError::new(OPERATION, Fault::Rejected));
        };
        let sent = self
            .updating_at(item::spending_pk(ask.day, ask.pool), item::SPENDING, e)
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .customize()
            .config_override(once())
            .send()
            .await;
        let corrupt = || StoreError::new(OPERATION, Fault::Corrupt);
        match sent {
            Ok(output) => {
                let item = output.attributes().ok_or_else(corrupt)?;
                item::read_spending(item).map(SliceAnswer::Leased)
            }
            Err(error) => match refused(&error) {
                Some(Refused { found }) => {
                    item::read_spending(&found.ok_or_else(corrupt)?).map(SliceAnswer::Refused)
                }
                None => Err(failed(OPERATION, error)),
            },
        }
    }

    async fn note_told(&self, day: Day, pool: Pool, level: Level) -> Result<Changed, StoreError> {
        let update =
            self.updating_at(item::spending_pk(day, pool), item::SPENDING, expression::note_told(level));
        changed("note level told", update).await
    }

    async fn put_claim(&self, claim: &Claim, now: Timestamp) -> Result<Option<Claim>, StoreError> {
        const OPERATION: &str = "put claim";
        let free = expression::claim_is_free(now);
        let refused = self.put_if(OPERATION, item::write_claim(claim), free).await?;
        let Some(Refused { found }) = refused else { return Ok(None) };
        let standing = found.ok_or_else(|| StoreError::new(OPERATION, Fault::Corrupt))?;
        item::read_claim(&standing).map(Some)
    }

    async fn change_claim(&self, claim: &Claim, owner: &HoldId) -> Result<Changed, StoreError> {
        let running = expression::claim_is_running_for(owner);
        let refused = self.put_if("change claim", item::write_claim(claim), running).await?;
        Ok(refused.is_none().into())
    }

    async fn drop_claim(&self, claim: &Claim) -> Result<Changed, StoreError> {
        let e = expression::claim_is_running_for(&claim.owner);
        let sent = self
            .client
            .delete_item()
            .table_name(&self.table)
            .key(attr::PK, item::pk(&claim.user))
            .key(attr::SK, item::s(&item::claim_sk(claim.key)))
            .condition_expression(e.condition())
            .set_expression_attribute_names(Some(e.names))
            .set_expression_attribute_values(some_unless_empty(e.values))
            .send()
            .await;
        match sent {
            Ok(_) => Ok(Changed::Yes),
            Err(error) => match error.as_service_error() {
                Some(DeleteItemError::ConditionalCheckFailedException(_)) => Ok(Changed::No),
                _ => Err(failed("drop claim", error)),
            },
        }
    }

    async fn claim(&self, user: &UserId, key: Digest) -> Result<Option<Claim>, StoreError> {
        let found = self.get("read claim", user, &item::claim_sk(key)).await?;
        found.map(|item| item::read_claim(&item)).transpose()
    }

    async fn put_stop(&self, user: &UserId, id: &HoldId, forget_at: Timestamp) -> Result<(), StoreError> {
        let sent = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(item::write_stop(user, id, forget_at)))
            .send()
            .await;
        sent.map(drop).map_err(|error| failed("put stop", error))
    }

    async fn is_stopped(&self, user: &UserId, id: &HoldId) -> Result<bool, StoreError> {
        Ok(self.get("read stop", user, &item::stop_sk(id)).await?.is_some())
    }
}

/// Sends an update; whether its condition held.
/// For a write that must not be repeated by itself.
fn once() -> aws_sdk_dynamodb::config::Builder {
    aws_sdk_dynamodb::config::Builder::new().retry_config(RetryConfig::disabled())
}

async fn changed(operation: &'static str, update: UpdateItemFluentBuilder) -> Result<Changed, StoreError> {
    match update.send().await {
        Ok(_) => Ok(Changed::Yes),
        Err(error) if refused(&error).is_some() => Ok(Changed::No),
        Err(error) => Err(failed(operation, error)),
    }
}

fn some_unless_empty(values: Item) -> Option<Item> {
    (!values.is_empty()).then_some(values)
}

/// A condition that did not hold, and the item that it was held against, if there is one.
struct Refused {
    found: Option<Item>,
}

fn refused<R>(error: &SdkError<UpdateItemError, R>) -> Option<Refused> {
    match error.as_service_error() {
        Some(UpdateItemError::ConditionalCheckFailedException(failure)) => {
            Some(Refused { found: failure.item().cloned() })
        }
        _ => None,
    }
}

/// What a failed operation means. Whatever is not certainly a refusal may have been done.
fn failed<E>(operation: &'static str, error: SdkError<E, HttpResponse>) -> StoreError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let fault = match &error {
        SdkError::ConstructionFailure(_) => Fault::Rejected,
        SdkError::ServiceError(service) if service.raw().status().is_server_error() => Fault::Unanswered,
        SdkError::ServiceError(service) => match service.err().code() {
            Some(
                "ProvisionedThroughputExceededException"
                | "RequestLimitExceeded"
                | "ThrottlingException"
                | "Throttling",
            ) => Fault::Throttled,
            Some("TransactionConflictException" | "TransactionInProgressException") => Fault::Conflict,
            Some("InternalServerError" | "ServiceUnavailable" | "InternalFailure") | None => {
                Fault::Unanswered
            }
            Some(_) => Fault::Rejected,
        },
        _ => Fault::Unanswered,
    };
    StoreError::new(operation, fault).because(error)
}

//! An embedded DynamoDB, reached over a port as on AWS, with the table that the deployment's template defines.
//!
//! Owns the database and its time-to-live sweeps. Never shows transaction conflicts, throttling or a stale index.

use std::{
    collections::{BTreeMap, HashMap},
    fmt, io,
    net::SocketAddr,
    path::PathBuf,
    time::Duration,
};

use dynoxide::{
    AttributeValue, Database, DynoxideError,
    actions::{
        create_table::CreateTableRequest,
        scan::ScanRequest,
        update_item::UpdateItemRequest,
        update_time_to_live::{TimeToLiveSpecification, UpdateTimeToLiveRequest},
    },
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::net::bind_loopback;

/// The database's file in the data directory.
pub const FILE_NAME: &str = "dynamodb.sqlite";
/// The most items that a scan returns; a local table beyond that is a mistake of the test's.
pub const SCAN_ITEMS_MAX: usize = 1_000_000;
/// The interval of time-to-live sweeps if none is chosen. AWS deletes within days.
pub const SWEEP_EVERY: Duration = Duration::from_mins(1);

/// Why there is no database.
#[derive(Debug, thiserror::Error)]
pub enum DynamoError {
    /// The port cannot be bound.
    #[error("cannot bind a port for DynamoDB")]
    Bind(#[source] io::Error),
    /// The template is not readable YAML.
    #[error("the template is not readable: {0}")]
    Template(String),
    /// The template defines no table, or more than one.
    #[error("the template defines {0} tables; exactly one is expected")]
    TableCount(usize),
    /// The engine refused.
    #[error("DynamoDB refuses: {0}")]
    Engine(String),
    /// More items than [`SCAN_ITEMS_MAX`].
    #[error("the table holds more than {SCAN_ITEMS_MAX} items")]
    TooManyItems,
}

impl From<DynoxideError> for DynamoError {
    fn from(error: DynoxideError) -> Self {
        Self::Engine(error.to_string())
    }
}

/// A table as a deployment template defines it.
#[derive(Debug, Clone, PartialEq)]
pub struct TableDefinition {
    properties: Map<String, Value>,
    ttl_attribute: Option<String>,
}

#[derive(Deserialize)]
struct Template {
    #[serde(rename = "Resources")]
    resources: BTreeMap<String, Value>,
}

impl TableDefinition {
    /// Reads the one `AWS::DynamoDB::Table` of a template. Its tags (`!Sub` and the like) are read
    /// past: no part of a table's shape may depend on them.
    ///
    /// # Errors
    /// The template is not readable, or has not exactly one table.
    pub fn from_template(template: &str) -> Result<Self, DynamoError> {
        let template: Template =
            serde_saphyr::from_str(template).map_err(|error| DynamoError::Template(error.to_string()))?;
        let resources = template.resources.into_values();
        let mut tables: Vec<Value> = resources
            .filter(|resource| resource.get("Type") == Some(&json!("AWS::DynamoDB::Table")))
            .collect();
        let (count, table) = (tables.len(), tables.pop());
        let Some(Value::Object(mut properties)) =
            table.filter(|_| count == 1).and_then(|mut table| table.get_mut("Properties").map(Value::take))
        else {
            return Err(DynamoError::TableCount(count));
        };
        let ttl = properties.remove("TimeToLiveSpecification");
        let ttl_attribute = ttl
            .filter(|ttl| ttl.get("Enabled") == Some(&json!(true)))
            .and_then(|ttl| ttl.get("AttributeName").and_then(Value::as_str).map(str::to_owned));
        Ok(Self { properties, ttl_attribute })
    }

    /// The `CreateTable` request of this table, as DynamoDB reads it.
    pub fn create_request(&self, name: &str) -> Value {
        let mut request = Map::new();
        // What only AWS has (recovery, protection, encryption, tags) is not a table's shape.
        for part in ["AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes", "BillingMode"] {
            if let Some(value) = self.properties.get(part) {
                request.insert(part.to_owned(), value.clone());
            }
        }
        request.insert("TableName".to_owned(), Value::from(name));
        Value::Object(request)
    }
}

/// Where and how the database runs.
#[derive(Debug, Clone)]
pub struct DynamoOptions {
    /// The directory of its file; `None` keeps it in memory.
    pub data: Option<PathBuf>,
    /// The table's name.
    pub table_name: String,
    /// The table.
    pub table: TableDefinition,
    /// The interval of time-to-live sweeps.
    pub sweep_every: Duration,
}

/// A running database.
pub struct Dynamo {
    address: SocketAddr,
    database: Database,
    table_name: String,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl fmt::Debug for Dynamo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dynamo").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Drop for Dynamo {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Dynamo {
    /// Opens the database, creates the table unless it is there, and serves it on a free port.
    ///
    /// # Errors
    /// See [`DynamoError`].
    pub fn start(options: &DynamoOptions) -> Result<Self, DynamoError> {
        let database = match &options.data {
            None => Database::memory()?,
            Some(data) => Database::new(&data.join(FILE_NAME).to_string_lossy())?,
        };
        if database.get_table_metadata(&options.table_name)?.is_none() {
            let request: CreateTableRequest =
                serde_json::from_value(options.table.create_request(&options.table_name))
                    .map_err(|error| DynamoError::Engine(error.to_string()))?;
            database.create_table(request)?;
            if let Some(attribute_name) = options.table.ttl_attribute.clone() {
                database.update_time_to_live(UpdateTimeToLiveRequest {
                    table_name: options.table_name.clone(),
                    time_to_live_specification: TimeToLiveSpecification { attribute_name, enabled: true },
                })?;
            }
        }
        let listener = bind_loopback().map_err(DynamoError::Bind)?;
        let address = listener.local_addr().map_err(DynamoError::Bind)?;
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let served =
            dynoxide::server::serve_with_shutdown(listener, database.clone(), stop.clone().cancelled_owned());
        tasks.spawn(async move {
            if let Err(error) = served.await {
                tracing::error!(error, "DynamoDB stopped");
            }
        });
        tasks.spawn(sweep(database.clone(), options.sweep_every, stop.clone()));
        Ok(Self { address, database, table_name: options.table_name.clone(), stop, tasks })
    }

    /// The endpoint, for `aws-sdk-dynamodb`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The table's name.
    pub fn table_name(&self) -> &str {
        &self.table_name
    }

    /// The engine, for tests that need more than this.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Deletes what has expired now.
    ///
    /// # Errors
    /// The engine refuses.
    pub fn sweep_ttl(&self) -> Result<usize, DynamoError> {
        Ok(self.database.sweep_ttl()?)
    }

    /// Sets a number of one item, for a test that cannot wait until time has done it.
    ///
    /// # Errors
    /// The engine refuses.
    pub fn set_number(&self, key: [&str; 2], attribute: &str, number: u64) -> Result<(), DynamoError> {
        let [pk, sk] = key.map(|text| AttributeValue::S(text.to_owned()));
        let request = UpdateItemRequest {
            table_name: self.table_name.clone(),
            key: HashMap::from([("pk".to_owned(), pk), ("sk".to_owned(), sk)]),
            update_expression: Some("SET #attribute = :number".to_owned()),
            expression_attribute_names: Some(HashMap::from([(
                "#attribute".to_owned(),
                attribute.to_owned(),
            )])),
            expression_attribute_values: Some(HashMap::from([(
                ":number".to_owned(),
                AttributeValue::N(number.to_string()),
            )])),
            ..UpdateItemRequest::default()
        };
        self.database.update_item(request)?;
        Ok(())
    }

    /// Every item as plain JSON: numbers are numbers if a 64-bit integer holds them, else text; sets are arrays.
    ///
    /// # Errors
    /// The engine refuses, or there are more than [`SCAN_ITEMS_MAX`].
    pub fn scan(&self) -> Result<Vec<Value>, DynamoError> {
        let mut items = Vec::new();
        let mut exclusive_start_key = None;
        loop {
            let request = ScanRequest {
                table_name: self.table_name.clone(),
                consistent_read: Some(true),
                exclusive_start_key: exclusive_start_key.take(),
                ..ScanRequest::default()
            };
            let page = self.database.scan(request)?;
            items.extend(page.items.unwrap_or_default().into_iter().map(plain_item));
            if items.len() > SCAN_ITEMS_MAX {
                return Err(DynamoError::TooManyItems);
            }
            exclusive_start_key = page.last_evaluated_key;
            if exclusive_start_key.is_none() {
                return Ok(items);
            }
        }
    }

    /// Stops serving and waits for the requests under way.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn sweep(database: Database, every: Duration, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(every)).await.is_some() {
        let database = database.clone();
        match tokio::task::spawn_blocking(move || database.sweep_ttl()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the time-to-live sweep failed"),
            Err(_) => return,
        }
    }
}

fn plain_item(item: HashMap<String, AttributeValue>) -> Value {
    Value::Object(item.into_iter().map(|(name, value)| (name, plain(value))).collect())
}

fn plain(value: AttributeValue) -> Value {
    match value {
        AttributeValue::N(number) => plain_number(&number),
        AttributeValue::NS(numbers) => numbers.iter().map(|number| plain_number(number)).collect(),
        AttributeValue::L(list) => list.into_iter().map(plain).collect(),
        AttributeValue::M(map) => plain_item(map),
        // The rest is one field in DynamoDB's own JSON: {"S": "text"}.
        other => match serde_json::to_value(&other) {
            Ok(Value::Object(tagged)) => match tagged.into_iter().next() {
                Some((tag, _)) if tag == "NULL" => Value::Null,
                Some((_, value)) => value,
                None => Value::Null,
            },
            Ok(value) => value,
            Err(_) => Value::Null,
        },
    }
}

fn plain_number(number: &str) -> Value {
    let signed = number.parse::<i64>().map(Value::from);
    signed.or_else(|_| number.parse::<u64>().map(Value::from)).unwrap_or_else(|_| Value::from(number))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::{Dynamo, DynamoError, DynamoOptions, TableDefinition};

    const TEMPLATE: &str = r#"
AWSTemplateFormatVersion: "2010-09-09"
Transform: AWS::Serverless-2016-10-31
Parameters:
  Stage: { Type: String, Default: dev }
Resources:
  Generate:
    Type: AWS::Serverless::Function
    Properties:
      Environment:
        Variables:
          TABLE_NAME: !Ref Table
          URL: !Sub "https://${Api}.example/${Stage}"
          ARN: !GetAtt Table.Arn
          OTHER: !If [IsProd, !Select [0, !Split [",", "a,b"]], !Ref AWS::NoValue]
  Table:
    Type: AWS::DynamoDB::Table
    DeletionPolicy: Retain
    Properties:
      TableName: !Sub "inkmeter-${Stage}"
      BillingMode: PAY_PER_REQUEST
      DeletionProtectionEnabled: true
      PointInTimeRecoverySpecification: { PointInTimeRecoveryEnabled: true }
      AttributeDefinitions:
        - { AttributeName: pk, AttributeType: S }
        - { AttributeName: sk, AttributeType: S }
        - { AttributeName: dirty, AttributeType: S }
      KeySchema:
        - { AttributeName: pk, KeyType: HASH }
        - { AttributeName: sk, KeyType: RANGE }
      GlobalSecondaryIndexes:
        - IndexName: dirty
          KeySchema:
            - { AttributeName: dirty, KeyType: HASH }
            - { AttributeName: pk, KeyType: RANGE }
          Projection: { ProjectionType: KEYS_ONLY }
      TimeToLiveSpecification: { AttributeName: expires_at, Enabled: true }
"#;

    fn options(data: Option<std::path::PathBuf>) -> DynamoOptions {
        let table = TableDefinition::from_template(TEMPLATE).unwrap();
        DynamoOptions { data, table_name: "inkmeter".to_owned(), table, sweep_every: Duration::from_hours(1) }
    }

    fn put(dynamo: &Dynamo, item: &serde_json::Value) {
        let request = json!({ "TableName": dynamo.table_name(), "Item": item });
        dynamo.database().put_item(serde_json::from_value(request).unwrap()).unwrap();
    }

    #[tokio::test]
    async fn the_table_has_the_templates_keys_index_and_time_to_live() {
        let dynamo = Dynamo::start(&options(None)).unwrap();
        put(&dynamo, &json!({ "pk": {"S": "U#1"}, "sk": {"S": "A"}, "expires_at": {"N": "1"} }));
        put(
            &dynamo,
            &json!({ "pk": {"S": "U#1"}, "sk": {"S": "M"}, "dirty": {"S": "3"},
                "n": {"N": "18446744073709551615"}, "m": {"M": {"l": {"L": [{"NULL": true}, {"BOOL": true}]}}} }),
        );
        assert_eq!(dynamo.scan().unwrap().len(), 2);
        assert_eq!(dynamo.sweep_ttl().unwrap(), 1);
        let expected =
            json!({ "pk": "U#1", "sk": "M", "dirty": "3", "n": u64::MAX, "m": {"l": [null, true]} });
        assert_eq!(dynamo.scan().unwrap(), [expected]);
        let query = json!({ "TableName": "inkmeter", "IndexName": "dirty", "KeyConditionExpression": "dirty = :d",
            "ExpressionAttributeValues": {":d": {"S": "3"}} });
        let found = dynamo.database().query(serde_json::from_value(query).unwrap()).unwrap();
        assert_eq!(found.count, 1);
        dynamo.shutdown().await;
    }

    #[tokio::test]
    async fn a_data_directory_keeps_the_items() {
        let directory = tempfile::tempdir().unwrap();
        let first = Dynamo::start(&options(Some(directory.path().to_owned()))).unwrap();
        put(&first, &json!({ "pk": {"S": "U#1"}, "sk": {"S": "A"} }));
        first.shutdown().await;
        drop(first);
        let second = Dynamo::start(&options(Some(directory.path().to_owned()))).unwrap();
        assert_eq!(second.scan().unwrap(), [json!({ "pk": "U#1", "sk": "A" })]);
    }

    #[test]
    fn a_template_without_exactly_one_table_is_refused() {
        let none = TableDefinition::from_template("Resources: {}").unwrap_err();
        assert!(matches!(none, DynamoError::TableCount(0)), "{none}");
        let broken = TableDefinition::from_template("Resources: [").unwrap_err();
        assert!(matches!(broken, DynamoError::Template(_)), "{broken}");
    }
}

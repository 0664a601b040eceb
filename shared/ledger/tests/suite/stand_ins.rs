//! What the ledger counts on DynamoDB for and the other tests cannot see: whether the stand-ins do it too.

use super::support::{TABLE, clients, user, world};
use aws_sdk_dynamodb::{
    Client,
    error::ProvideErrorMetadata,
    types::{AttributeValue, Put, TransactWriteItem, Update},
};

fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

/// Runs one test on every stand-in.
fn on_each_client<F>(test: impl Fn(&'static str, Client) -> F)
where
    F: Future<Output = ()>,
{
    for (name, client) in clients() {
        world().runtime.block_on(test(name, client));
    }
}

#[test]
fn an_expression_or_an_item_that_is_too_large_is_refused() {
    on_each_client(async |name, client| {
        let (user, key) = (
            user(),
            |put: aws_sdk_dynamodb::operation::put_item::builders::PutItemFluentBuilder, pk: &str| {
                put.table_name(TABLE).item("pk", text(pk)).item("sk", text("X"))
            },
        );
        let condition = |bytes: usize| {
            let one = "attribute_not_exists(pk) AND ";
            format!("{}attribute_not_exists(pk)", one.repeat(bytes / one.len()))
        };
        let fits = key(client.put_item(), user.as_str()).condition_expression(condition(3_500)).send().await;
        assert!(fits.is_ok(), "{name}: {fits:?}");
        let other = super::support::user();
        let large =
            key(client.put_item(), other.as_str()).condition_expression(condition(4_200)).send().await;
        assert_eq!(large.unwrap_err().code(), Some("ValidationException"), "{name}");
        let item =
            key(client.put_item(), other.as_str()).item("model", text(&"x".repeat(400 * 1_024))).send().await;
        assert_eq!(item.unwrap_err().code(), Some("ValidationException"), "{name}");
    });
}

#[test]
fn a_transaction_that_is_sent_again_under_its_token_is_done_once() {
    on_each_client(async |name, client| {
        let user = user();
        let put = Put::builder()
            .table_name(TABLE)
            .item("pk", text(user.as_str()))
            .item("sk", text("NEW"))
            .condition_expression("attribute_not_exists(pk)")
            .build()
            .unwrap();
        let add = Update::builder()
            .table_name(TABLE)
            .key("pk", text(user.as_str()))
            .key("sk", text("COUNT"))
            .update_expression("ADD tokens :one")
            .expression_attribute_values(":one", AttributeValue::N("1".to_owned()))
            .build()
            .unwrap();
        let items =
            [TransactWriteItem::builder().put(put).build(), TransactWriteItem::builder().update(add).build()];
        for _ in 0..2 {
            let transaction = client.transact_write_items().set_transact_items(Some(items.to_vec()));
            let sent = transaction.client_request_token(format!("token-{user}")).send().await;
            assert!(sent.is_ok(), "{name}: {sent:?}");
        }
        let found = client
            .get_item()
            .table_name(TABLE)
            .key("pk", text(user.as_str()))
            .key("sk", text("COUNT"))
            .consistent_read(true)
            .send()
            .await
            .unwrap();
        assert_eq!(found.item().unwrap()["tokens"], AttributeValue::N("1".to_owned()), "{name}");
    });
}

//! The bus: it takes everything. What is said on it moves no token.

use aws_sdk_eventbridge::config::{
    BehaviorVersion, Credentials, Region, http::HttpResponse, retry::RetryConfig,
};
use aws_smithy_runtime_api::client::{
    http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn},
    orchestrator::HttpRequest,
};
use aws_smithy_types::body::SdkBody;
use bus::Bus;
use std::sync::OnceLock;

#[derive(Debug)]
struct Taking;

impl HttpConnector for Taking {
    fn call(&self, _request: HttpRequest) -> HttpConnectorFuture {
        let body = r#"{"FailedEntryCount":0,"Entries":[{"EventId":"1"}]}"#;
        let response = HttpResponse::new(200.try_into().unwrap(), SdkBody::from(body));
        HttpConnectorFuture::ready(Ok(response))
    }
}

/// One for all simulations: it keeps nothing.
pub(crate) fn bus() -> Bus {
    static BUS: OnceLock<Bus> = OnceLock::new();
    let make = || {
        let client = http_client_fn(|_, _| SharedHttpConnector::new(Taking));
        let config = aws_sdk_eventbridge::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-central-1"))
            .credentials_provider(Credentials::new("key", "secret", None, None, "simulation"))
            .http_client(client)
            .retry_config(RetryConfig::disabled())
            .build();
        Bus::new(aws_sdk_eventbridge::Client::from_conf(config), "bus".into())
    };
    BUS.get_or_init(make).clone()
}

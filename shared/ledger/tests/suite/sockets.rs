//! Real connections that are cut: what the HTTP client below the SDK does by itself is in the test too. It has a pool,
//! and sends again what a connection that had just closed did not take.

use super::{
    support::{HOLD_MS, T0, TABLE, demand, new_id, plans, price, t, used, user, world},
    wire::Call,
};
use aws_config::{BehaviorVersion, Region};
use aws_sdk_dynamodb::config::Credentials;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use ledger::{DynamoSettings, DynamoStore, Ledger, MeterKey, Store};
use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// The largest head of a request or an answer, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1_024;

/// What becomes of a request's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// Nothing.
    No,
    /// Cut once the request was read; the server never has it.
    BeforeServer,
    /// Cut when the server has answered.
    BeforeAnswer,
    /// Cut in the middle of the answer.
    InAnswer,
    /// Closed right behind a whole answer that did not announce it: the pool still counts on it.
    BehindAnswer,
}

/// What lies between client and server.
struct Between {
    server: SocketAddr,
    /// What becomes of an admission, in turn.
    admissions: Mutex<Vec<Cut>>,
    /// What becomes of everything else.
    others: Cut,
    /// The ids of the admissions that were on the wire.
    seen: Mutex<Vec<String>>,
}

impl Between {
    async fn serve(self: Arc<Self>, listener: TcpListener) {
        while let Ok((client, _)) = listener.accept().await {
            #[expect(clippy::disallowed_methods, reason = "it ends with its connection")]
            tokio::spawn(self.clone().relay(client));
        }
    }

    async fn relay(self: Arc<Self>, mut client: TcpStream) -> io::Result<()> {
        loop {
            let (head, body) = read_message(&mut client).await?;
            let cut = self.cut(&head, &body);
            if cut == Cut::BeforeServer {
                return Ok(());
            }
            let mut server = TcpStream::connect(self.server).await?;
            server.write_all(&[head, body].concat()).await?;
            let (head, body) = read_message(&mut server).await?;
            let answer = [head, body].concat();
            match cut {
                Cut::BeforeServer | Cut::BeforeAnswer => return Ok(()),
                Cut::InAnswer => return client.write_all(&answer[..answer.len() - 5]).await,
                Cut::BehindAnswer => return client.write_all(&answer).await,
                Cut::No => client.write_all(&answer).await?,
            }
        }
    }

    fn cut(&self, head: &[u8], body: &[u8]) -> Cut {
        let head = String::from_utf8_lossy(head);
        let operation =
            head.lines().find_map(|line| line.split_once("DynamoDB_20120810.")).unwrap().1.to_owned();
        let call = Call { operation, body: serde_json::from_slice(body).unwrap() };
        let Some(id) = call.admits() else { return self.others };
        self.seen.lock().unwrap().push(id.to_owned());
        let mut left = self.admissions.lock().unwrap();
        if left.is_empty() { Cut::No } else { left.remove(0) }
    }
}

/// One request or answer: its head, and as much body as it announces.
async fn read_message(stream: &mut TcpStream) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        assert!(head.len() < HEAD_BYTES_MAX, "a head without an end");
        head.push(stream.read_u8().await?);
    }
    let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:")).unwrap();
    let mut body = vec![0; length.trim().parse().unwrap()];
    stream.read_exact(&mut body).await?;
    Ok((head, body))
}

/// A store through `between`, with the connections, retries and time-outs of a function.
async fn store(between: Between) -> (DynamoStore, Arc<Between>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Some(format!("http://{}", listener.local_addr().unwrap()));
    let between = Arc::new(between);
    #[expect(clippy::disallowed_methods, reason = "it ends with the runtime")]
    tokio::spawn(between.clone().serve(listener));
    let provider = Provider::Rustls(CryptoMode::Ring);
    let loader = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new(user().as_str().replace('_', "-")))
        .credentials_provider(Credentials::new("local", "local", None, None, "tests"))
        .http_client(aws_smithy_http_client::Builder::new().tls_provider(provider).build_https());
    let settings = DynamoSettings { table: TABLE.to_owned(), endpoint };
    (DynamoStore::configured(loader, settings).await, between)
}

#[test]
fn i3_no_layer_below_the_ledger_sends_an_admission_twice() {
    let world = world();
    let server = world.dynamo.endpoint().strip_prefix("http://").unwrap().parse().unwrap();
    for cut in [Cut::BeforeServer, Cut::BeforeAnswer, Cut::InAnswer, Cut::BehindAnswer] {
        // Over a connection that was used before, and over one that its peer has just closed.
        for others in [Cut::No, Cut::BehindAnswer] {
            world.runtime.block_on(async {
                let (admissions, seen) = (Mutex::new(vec![cut; 2]), Mutex::default());
                let (store, between) = store(Between { server, admissions, others, seen }).await;
                let (ledger, user) = (Ledger::new(store.clone(), plans()), user());
                let hold = ledger.admit(&user, &demand(300), &price(), HOLD_MS, &new_id, T0).await.unwrap();
                let id = hold.id().to_string();
                let receipt = ledger.settle(hold, used(200), &price(), T0).await.unwrap();
                assert_eq!(receipt.charged, t(200));
                let seen = between.seen.lock().unwrap().clone();
                assert_eq!(
                    seen.len(),
                    if cut == Cut::BehindAnswer { 1 } else { 3 },
                    "{cut:?} {others:?}: {seen:?}"
                );
                assert_eq!(
                    seen.iter().collect::<BTreeSet<_>>().len(),
                    seen.len(),
                    "{cut:?} {others:?}: {seen:?}"
                );
                assert_eq!(seen.last(), Some(&id));
                let key = MeterKey { user, period_start: receipt.period_start };
                let meter = store.meter(&key).await.unwrap().unwrap();
                assert_eq!(
                    (meter.settled, meter.committed, meter.holds.len()),
                    (t(200), t(200), 0),
                    "{cut:?}"
                );
                assert_eq!(meter.totals.requests, 1, "{cut:?} {others:?}");
            });
        }
    }
}

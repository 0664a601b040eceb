//! The route table: which function answers which method and path, how, and for how long.

use std::{collections::BTreeMap, time::Duration};

use http::Method;

/// API Gateway's bound on a streaming integration.
pub const STREAM_TIMEOUT_MAX: Duration = Duration::from_mins(15);
/// API Gateway's default bound on a buffered integration.
pub const BUFFERED_TIMEOUT: Duration = Duration::from_secs(29);
/// How long a stream may be silent before API Gateway cuts it (a regional endpoint).
pub const STREAM_IDLE_MAX: Duration = Duration::from_mins(5);

/// How a function's response reaches the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transfer {
    /// Chunk by chunk (`responseTransferMode: STREAM`).
    Stream,
    /// At once, when it is complete.
    Buffered,
}

/// One route.
#[derive(Debug, Clone)]
pub struct Route {
    /// The method, exactly.
    pub method: Method,
    /// The path: literal segments, `{name}` for one segment, `{name+}` for all that are left.
    pub resource: String,
    /// The function that answers.
    pub function: String,
    /// How its response is transferred.
    pub transfer: Transfer,
    /// How long the whole response may take.
    pub timeout: Duration,
    /// How long a stream may be silent.
    pub idle_max: Duration,
}

impl Route {
    /// A streaming route with API Gateway's longest timeout.
    pub fn stream(method: Method, resource: &str, function: &str) -> Self {
        Self::new(method, resource, function, Transfer::Stream, STREAM_TIMEOUT_MAX)
    }

    /// A buffered route with API Gateway's default timeout.
    pub fn buffered(method: Method, resource: &str, function: &str) -> Self {
        Self::new(method, resource, function, Transfer::Buffered, BUFFERED_TIMEOUT)
    }

    /// The same route with another timeout.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    fn new(method: Method, resource: &str, function: &str, transfer: Transfer, timeout: Duration) -> Self {
        let (resource, function) = (resource.to_owned(), function.to_owned());
        Self { method, resource, function, transfer, timeout, idle_max: STREAM_IDLE_MAX }
    }

    /// The path parameters, still encoded, if `path` is one of this route.
    fn matches(&self, path: &str) -> Option<BTreeMap<String, String>> {
        let mut parameters = BTreeMap::new();
        let mut segments = path.split('/');
        for expected in self.resource.split('/') {
            let name = expected.strip_prefix('{').and_then(|name| name.strip_suffix('}'));
            match name.map(|name| name.strip_suffix('+').ok_or(name)) {
                None => (segments.next()? == expected).then_some(())?,
                Some(Err(one)) => {
                    let segment = segments.next().filter(|segment| !segment.is_empty())?;
                    parameters.insert(one.to_owned(), segment.to_owned());
                }
                Some(Ok(rest)) => {
                    let rest_of_path = segments.by_ref().collect::<Vec<_>>().join("/");
                    (!rest_of_path.is_empty()).then_some(())?;
                    parameters.insert(rest.to_owned(), rest_of_path);
                }
            }
        }
        segments.next().is_none().then_some(parameters)
    }

    /// Literal segments win over `{name}`, which wins over `{name+}`.
    fn rank(&self) -> (bool, usize) {
        (self.resource.ends_with("+}"), self.resource.matches('{').count())
    }
}

/// All routes of the gateway.
#[derive(Debug, Clone, Default)]
pub struct RouteTable {
    routes: Vec<Route>,
}

impl RouteTable {
    /// Takes the routes, in any order.
    pub fn new(mut routes: Vec<Route>) -> Self {
        routes.sort_by_key(Route::rank);
        Self { routes }
    }

    /// The route of a request with its path parameters, still encoded.
    pub fn find(&self, method: &Method, path: &str) -> Option<(&Route, BTreeMap<String, String>)> {
        let mut of_method = self.routes.iter().filter(|route| route.method == method);
        of_method.find_map(|route| route.matches(path).map(|parameters| (route, parameters)))
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::{Route, RouteTable};

    fn table() -> RouteTable {
        let get = |resource, function| Route::buffered(Method::GET, resource, function);
        RouteTable::new(vec![
            get("/v1/{rest+}", "rest"),
            get("/v1/{id}/stop", "stop"),
            get("/v1/usage", "usage"),
        ])
    }

    #[track_caller]
    fn check(path: &str, expected: Option<(&str, &[(&str, &str)])>) {
        let table = table();
        let found = table.find(&Method::GET, path);
        let found = found
            .map(|(route, parameters)| (route.function.clone(), parameters.into_iter().collect::<Vec<_>>()));
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let expected = expected
            .map(|(function, parameters)| (function.to_owned(), parameters.iter().map(owned).collect()));
        assert_eq!(found, expected, "{path}");
    }

    #[test]
    fn a_literal_wins_over_a_parameter_and_a_parameter_over_the_rest() {
        check("/v1/usage", Some(("usage", &[])));
        check("/v1/a/stop", Some(("stop", &[("id", "a")])));
        check("/v1/a/b/c", Some(("rest", &[("rest", "a/b/c")])));
        check("/v1//stop", Some(("rest", &[("rest", "/stop")])));
    }

    #[test]
    fn a_path_or_method_of_no_route_is_not_found() {
        check("/v2/usage", None);
        check("/v1", None);
        check("/v1/", None);
        assert!(table().find(&Method::POST, "/v1/usage").is_none());
    }
}

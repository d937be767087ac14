//! The NATS permissions that routes need, least privilege, as configuration of nats-server. Must not connect.

use std::collections::BTreeSet;

use bridge::CONTROL;
use catalog::{Catalog, Kind, Route, Subscription};

/// For how long a service may answer a request where its routes allow less, in seconds.
const ANSWER: u64 = 180;
/// For how long it may stream replies, in seconds.
const STREAM: u64 = 24 * 60 * 60;
/// Where the gateway receives replies.
const INBOX: &str = "_INBOX_gateway.>";
const HEAD: &str = "# NATS permissions of these routes. For a server without deploy/nats/roles.conf: include this file in its
# configuration before `accounts`, and name the variables there. With roles.conf, which has a `gateway_may` of its
# own: add the subjects of the routes to that one, and copy the roles of the services alone.
#   {user: gateway, password: $GATEWAY_PASSWORD, permissions: $gateway_may}
# The gateway needs GW_NATS_INBOX_PREFIX=_INBOX_gateway.
";

/// What the gateway publishes to whatever its routes are: discovery, and what `gateway doctor` asks.
pub const GENERAL: [&str; 6] = [
    "$SRV.INFO",
    "$SRV.STATS",
    "$SRV.STATS.gateway",
    "$JS.API.STREAM.NAMES",
    "$JS.API.INFO",
    "$SYS.REQ.USER.INFO",
];

/// What the order system publishes to beside its routes: orders and their events, consumers for lists and watches, and
/// the state of its streams.
pub const ORDERS: [&str; 12] = [
    "orders.event.order_created.*",
    "orders.event.order_status_updated.*",
    "$JS.API.STREAM.MSG.GET.ORDERS",
    "$JS.API.CONSUMER.CREATE.ORDERS.*",
    "$JS.API.CONSUMER.MSG.NEXT.ORDERS.*",
    "$JS.API.CONSUMER.DELETE.ORDERS.*",
    "$JS.API.STREAM.INFO.ORDERS",
    "$JS.API.STREAM.INFO.INVENTORY",
    "$JS.API.STREAM.INFO.OBJ_inventory-snapshots",
    "$JS.API.STREAM.INFO.DEAD_LETTERS",
    "$JS.API.STREAM.MSG.GET.DEAD_LETTERS",
    "$JS.API.CONSUMER.INFO.ORDERS.inventory-worker",
];

/// What a user of NATS may do.
#[derive(Default)]
pub(crate) struct Rights {
    pub(crate) publish: Vec<String>,
    pub(crate) subscribe: Vec<String>,
    /// How many replies it may send to a request; -1: any number.
    replies: i32,
    /// For how long, in seconds.
    expires: u64,
}

/// The permissions that these routes need: variables `gateway_may` and, for each service, such as
/// `bookstore_v1_Books_may`.
pub fn permissions(catalog: &Catalog) -> String {
    let mut rights =
        Rights { publish: Vec::new(), subscribe: vec![INBOX.to_owned()], replies: 1, expires: 2 };
    catalog.routes().iter().for_each(|route| rights.add_use(route, INBOX));
    rights.publish.extend(GENERAL.map(str::to_owned));
    for verb in ["PING", "INFO", "STATS"] {
        rights.subscribe.extend(["gateway", "gateway.*"].map(|name| format!("$SRV.{verb}.{name}")));
    }
    let mut text = HEAD.to_owned() + &rights.show("gateway_may");
    for service in catalog.services() {
        let mut rights = Rights { publish: Vec::new(), subscribe: Vec::new(), replies: 1, expires: ANSWER };
        let routes = catalog.routes().iter().filter(|route| route.service == service.name);
        routes.for_each(|route| rights.add_service(route));
        // A service answers discovery under a name and with an id of its own choice.
        for verb in ["PING", "INFO", "STATS"] {
            rights.subscribe.extend([format!("$SRV.{verb}"), format!("$SRV.{verb}.>")]);
        }
        text += &rights.show(&format!("{}_may", service.name.replace('.', "_")));
    }
    text
}

impl Rights {
    /// What the gateway does for the order system beside its routes.
    pub(crate) fn of_orders() -> Rights {
        Rights { publish: ORDERS.map(str::to_owned).into(), ..Rights::default() }
    }

    /// What the gateway does for a route. `inbox`: the subjects where it receives replies.
    pub(crate) fn add_use(&mut self, route: &Route, inbox: &str) {
        let pattern = route.subject.pattern();
        match &route.kind {
            Kind::Subscribe(Subscription { stream: Some(stream), .. }) => self.publish.extend([
                format!("$JS.API.STREAM.INFO.{stream}"),
                format!("$JS.API.CONSUMER.CREATE.{stream}.*.{pattern}"),
                format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.*"),
                format!("$JS.API.CONSUMER.DELETE.{stream}.*"),
            ]),
            // What it sends to itself tells that the server has processed the subscription.
            Kind::Subscribe(Subscription { stream: None, .. }) => {
                self.publish.push(inbox.to_owned());
                self.subscribe.push(pattern);
            }
            // For how long a stream knows the ids of messages, and which message is the next one, to find out whether one
            // is stored.
            Kind::EmitDurable(durable) => {
                let stream = durable.stream.as_deref().unwrap_or("*");
                let api =
                    ["$JS.API.STREAM.INFO", "$JS.API.STREAM.MSG.GET"].map(|api| format!("{api}.{stream}"));
                self.publish.extend([vec![pattern], api.into()].concat());
            }
            // What it sends to itself tells that the server has the event.
            Kind::Emit { .. } => self.publish.extend([pattern, inbox.to_owned()]),
            Kind::Request | Kind::RequestMany(_) => self.publish.push(pattern),
        }
        if is_controlled(route) {
            self.publish.push(CONTROL.to_owned());
        }
    }

    /// What the service behind a route does.
    fn add_service(&mut self, route: &Route) {
        let pattern = route.subject.pattern();
        match &route.kind {
            Kind::Subscribe(_) => self.publish.push(pattern),
            // It reads the stream, by rights of its own.
            Kind::EmitDurable(_) => {}
            Kind::Request | Kind::RequestMany(_) | Kind::Emit { .. } => {
                self.subscribe.push(format!("{pattern} {}", route.queue_group).trim_end().to_owned());
            }
        }
        if is_controlled(route) {
            self.subscribe.push(CONTROL.to_owned());
        }
        if matches!(route.kind, Kind::RequestMany(_)) {
            (self.replies, self.expires) = (-1, STREAM);
        }
        self.expires = self.expires.max(route.timeout.as_secs() + 60);
    }

    /// One role. Subjects are shown once, in their order.
    fn show(self, name: &str) -> String {
        let lines = |subjects: Vec<String>| {
            let mut known = BTreeSet::new();
            let once = subjects.into_iter().filter(|subject| known.insert(subject.clone()));
            once.map(|subject| format!("      \"{subject}\"\n")).collect::<String>()
        };
        let Rights { publish, subscribe, replies, expires } = self;
        let publish = match publish.is_empty() {
            true => "deny: \">\" ".to_owned(),
            false => format!("\n    allow: [\n{}    ]\n  ", lines(publish)),
        };
        let subscribe = lines(subscribe);
        format!(
            "\n{name}: {{\n  publish: {{ {publish}}}\n  subscribe: {{\n    allow: [\n{subscribe}    ]\n  }}\n  \
             allow_responses: {{ max: {replies}, expires: \"{expires}s\" }}\n}}\n"
        )
    }
}

/// Whether the service is told how many messages it may send, or that nobody waits.
fn is_controlled(route: &Route) -> bool {
    route.cancel || matches!(route.kind, Kind::RequestMany(_))
}

//! Access rules: what an rpc requires of its caller, and for which tenant. Must not know who calls.

use std::fmt;
use std::sync::Arc;

use transcode::FieldPath;

use crate::kind::{Kind, Problems};
use crate::options::AccessOption;
use crate::route::Route;
use crate::rpc;

/// What to write where an rpc says nothing about who may call it.
pub(crate) const REQUIRE: &str = "write `option (natsgateway.v1.access) = {scope: \"things.read\"};`, or `{authenticated: true}` or `{public: true}`";

/// What an rpc requires of its caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The rpc's path in HTTP/2: `/service/rpc`.
    pub path: String,
    /// Who may call it.
    pub requirement: Requirement,
    /// The field of the request that has to be the caller's tenant.
    pub tenant_field: Option<String>,
    /// Whether callers of all tenants share what it reads or sends.
    pub across_tenants: bool,
    /// Whether the rpc is streaming, so that a call may last long.
    pub streams: bool,
}

/// Who may call an rpc.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requirement {
    /// Anybody, without credentials.
    Public,
    /// Whoever has valid credentials.
    Authenticated,
    /// Who has this scope: words of `[a-z]`, joined by dots.
    Scope(Arc<str>),
}

impl Rule {
    /// The scope that is required, if one is.
    pub fn scope(&self) -> Option<&Arc<str>> {
        match &self.requirement {
            Requirement::Scope(scope) => Some(scope),
            Requirement::Public | Requirement::Authenticated => None,
        }
    }

    /// Whether anybody may call the rpc, without credentials.
    pub fn is_public(&self) -> bool {
        self.requirement == Requirement::Public
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Requirement::Public => f.write_str("public"),
            Requirement::Authenticated => f.write_str("authenticated"),
            Requirement::Scope(scope) => write!(f, "scope {scope}"),
        }
    }
}

/// Reads the rule of an rpc, and collects everything that is wrong with it.
pub(crate) fn rule(option: &AccessOption, problems: &mut Problems<'_>) -> Option<Rule> {
    let before = problems.findings.len();
    let requirement = requirement(option, problems);
    let method = problems.method;
    if option.across_tenants && !option.tenant_field.is_empty() {
        let problem = "has `across_tenants` and `tenant_field`: callers share it, or are kept apart";
        problems.add(problem, "remove one of them");
    }
    if option.public && !option.tenant_field.is_empty() {
        let problem = "has `public` and `tenant_field`, but who calls without credentials has no tenant";
        problems.add(problem, "remove one of them, or require a scope");
    }
    if option.public && option.across_tenants {
        let problem = "has `public` and `across_tenants`, but who calls without credentials has no tenant";
        problems.add(problem, "remove `across_tenants`");
    }
    let requirement = requirement.filter(|_| problems.findings.len() == before)?;
    Some(Rule {
        path: rpc::path(method),
        requirement,
        tenant_field: Some(option.tenant_field.clone()).filter(|field| !field.is_empty()),
        across_tenants: option.across_tenants,
        streams: method.is_client_streaming() || method.is_server_streaming(),
    })
}

fn requirement(option: &AccessOption, problems: &mut Problems<'_>) -> Option<Requirement> {
    let scope = option.scope.as_str();
    let word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase());
    if !scope.is_empty() && !scope.split('.').all(word) {
        let problem = format!("the scope {scope:?} is not words of [a-z] joined by dots");
        problems.add(problem, "write it like \"books.read\"");
        return None;
    }
    match (scope, option.public, option.authenticated) {
        ("", true, false) => Some(Requirement::Public),
        ("", false, true) => Some(Requirement::Authenticated),
        ("", false, false) => {
            problems.add("its access has none of `scope`, `public` and `authenticated`", REQUIRE);
            None
        }
        (scope, false, false) => Some(Requirement::Scope(scope.into())),
        _ => {
            let named = [
                ("scope", !scope.is_empty()),
                ("public", option.public),
                ("authenticated", option.authenticated),
            ];
            let named: Vec<_> = named.iter().filter(|(_, named)| *named).map(|(name, _)| *name).collect();
            let problem = format!("its access has {}, which contradict each other", named.join(" and "));
            problems.add(problem, "write exactly one of `scope`, `public` and `authenticated`");
            None
        }
    }
}

/// The field of a routed rpc that has to be the caller's tenant, and what contradicts its subject.
pub(crate) fn tenant(rule: &Rule, route: &Route, problems: &mut Problems<'_>) -> Option<FieldPath> {
    if rule.is_public() && route.subject.has_tenant() {
        let problem =
            "is public, but its subject has the caller's tenant, and who calls without credentials has none";
        problems.add(problem, "remove `{$tenant}`, or require a scope");
    }
    if rule.across_tenants && route.subject.has_tenant() {
        let problem = "has `across_tenants`, but its subject keeps tenants apart";
        problems.add(problem, "remove `across_tenants` or `{$tenant}`");
    }
    let name = rule.tenant_field.as_deref()?;
    let remedy = "name a field of the request that is a string, an integer or an enum, like \"tenant\" or \"book.tenant\"";
    let path = match FieldPath::new(&problems.method.input(), name) {
        Ok(path) if !path.is_bool() => path,
        Ok(_) => {
            problems.add(format!("`tenant_field`: the field {name:?} is a bool"), remedy);
            return None;
        }
        Err(error) => {
            problems.add(format!("`tenant_field`: {error}"), remedy);
            return None;
        }
    };
    if route.internal {
        let problem = "has `tenant_field`, but is internal: no caller's request is checked";
        problems.add(problem, "remove one of them");
    }
    if matches!(route.kind, Kind::Subscribe(_))
        && !route.subject.has_tenant()
        && !route.subject.has_field(name)
    {
        let problem = format!(
            "has the `tenant_field` {name:?}, but reads the messages of all tenants: {name:?} is no token of its subject"
        );
        problems.add(problem, format!("write a subject like \"things.{{{name}}}.changed\""));
    }
    Some(path)
}

/// An rpc whose callers probably read or send for every tenant, though that may not be meant.
pub(crate) fn shared(rule: &Rule, route: &Route) -> Option<(String, String)> {
    let (does, stored) = match &route.kind {
        Kind::Request | Kind::RequestMany(_) => return None,
        Kind::Emit { .. } | Kind::EmitDurable(_) => ("emits", "emit"),
        Kind::Subscribe(_) => ("reads", "read"),
    };
    let apart = route.subject.has_tenant() || rule.tenant_field.is_some();
    if apart || rule.across_tenants || rule.is_public() || route.internal {
        return None;
    }
    let who = match &rule.requirement {
        Requirement::Scope(scope) => format!("every caller with the scope {scope}"),
        _ => "every caller".to_owned(),
    };
    let field = match &route.kind {
        Kind::Subscribe(_) => "",
        _ => " or `tenant_field` in its access",
    };
    let remedy = format!(
        "write `{{$tenant}}` in its subject{field}, or `across_tenants: true` in its access if they may {stored} for each other"
    );
    Some((format!("{who} {does} for every tenant"), remedy))
}

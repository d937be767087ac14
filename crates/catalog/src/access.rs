//! Access rules: which scope an rpc requires of its caller. Must not know who calls.

use std::sync::Arc;

use prost_reflect::MethodDescriptor;

use crate::finding::Finding;
use crate::options::AccessOption;
use crate::rpc;

/// What an rpc requires of its caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The rpc's path in HTTP/2: `/service/rpc`.
    pub path: String,
    /// The required scope: words of `[a-z]`, joined by dots.
    pub scope: Arc<str>,
    /// Whether the rpc is streaming, so that a call may last long.
    pub streams: bool,
}

/// The rule of an rpc.
pub(crate) fn rule(method: &MethodDescriptor, option: &AccessOption) -> Result<Rule, Finding> {
    let scope = option.scope.as_str();
    let word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase());
    if !scope.split('.').all(word) {
        let problem = format!("the scope {scope:?} is not words of [a-z] joined by dots");
        return Err(Finding::of(method, problem, "write it like \"books.read\""));
    }
    let streams = method.is_client_streaming() || method.is_server_streaming();
    Ok(Rule { path: rpc::path(method), scope: scope.into(), streams })
}

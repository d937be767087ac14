//! What an access rule may say, and what is said about it.

use super::compile::{accepted, compile, refused};
use crate::{Catalog, Requirement};

/// The set of `acme.Things.Do` with these types, this access and this route.
fn described(types: &str, access: &str, route: &str) -> Vec<u8> {
    let access = format!("option (natsgateway.v1.access) = {{{access}}};");
    let route = format!("option (natsgateway.v1.route) = {{{route}}};");
    let [access, route] =
        [access, route].map(|option| if option.contains("{}") { String::new() } else { option });
    let text = format!(
        "syntax = \"proto3\"; import \"natsgateway/v1/access.proto\"; import \"natsgateway/v1/route.proto\";
         import \"google/protobuf/empty.proto\"; package acme;
         service Things {{
           rpc Do{types} {{ {access} {route} }}
         }}
         enum Region {{ REGION_UNKNOWN = 0; REGION_EU = 1; }}
         message Inner {{ string tenant = 1; }}
         message Thing {{
           string tenant = 1; Inner inner = 2; int64 number = 3; bool open = 4; Region region = 5;
           repeated string tags = 6; bytes raw = 7; map<string, string> labels = 8; optional string name = 9;
         }}
         message Receipt {{ uint64 sequence = 1; }}"
    );
    compile(&[("test.proto", &text)])
}

const UNARY: &str = "(Thing) returns (Thing)";
const EVENT: &str = "(Thing) returns (google.protobuf.Empty)";
const WATCH: &str = "(Thing) returns (stream Thing)";
const FIELD: &str = "scope: \"do\" tenant_field: \"tenant\"";

/// The only thing that is wrong: with its line, and what to do.
#[track_caller]
fn problem(types: &str, access: &str, route: &str) -> String {
    let findings = refused(&described(types, access, route));
    let found: Vec<_> = findings.iter().collect();
    assert_eq!(found.len(), 1, "{findings}");
    assert_eq!((found[0].file.as_str(), found[0].line), ("test.proto", Some(4)), "{findings}");
    findings.to_string()
}

#[test]
fn exactly_one_requirement_is_named() {
    let requirement = |access: &str| {
        let catalog = accepted(&described(UNARY, access, "subject: \"do\""));
        catalog.rules()[0].requirement.clone()
    };
    assert_eq!(requirement("public: true"), Requirement::Public);
    assert_eq!(requirement("authenticated: true"), Requirement::Authenticated);
    assert_eq!(requirement("scope: \"do\" public: false"), Requirement::Scope("do".into()));
    for (access, told) in [
        ("scope: \"\"", "none of `scope`, `public` and `authenticated`"),
        ("tenant_field: \"tenant\"", "none of `scope`, `public` and `authenticated`"),
        ("scope: \"do\" public: true", "scope and public, which contradict each other"),
        ("scope: \"do\" authenticated: true", "scope and authenticated, which contradict"),
        ("public: true authenticated: true", "public and authenticated, which contradict"),
        ("public: true tenant_field: \"tenant\"", "`public` and `tenant_field`"),
        ("public: true across_tenants: true", "`public` and `across_tenants`"),
        (
            "scope: \"do\" across_tenants: true tenant_field: \"tenant\"",
            "`across_tenants` and `tenant_field`",
        ),
    ] {
        let problem = problem(UNARY, access, "subject: \"do\"");
        assert!(problem.contains(told), "{access}: {problem}");
    }
}

#[test]
fn the_field_of_the_tenant_is_one_scalar_of_the_request() {
    for field in ["tenant", "inner.tenant", "number", "region", "name"] {
        let access = format!("authenticated: true tenant_field: \"{field}\"");
        let catalog = accepted(&described(UNARY, &access, "subject: \"do\""));
        assert_eq!(catalog.routes()[0].tenant_field.as_ref().map(|path| path.path()), Some(field));
        assert_eq!(catalog.rules()[0].tenant_field.as_deref(), Some(field));
    }
    for (field, told) in [
        ("tenants", "there is no field \"tenants\""),
        ("inner", "not one string"),
        ("tags", "not one string"),
        ("labels", "not one string"),
        ("raw", "not one string"),
        ("open", "is a bool"),
        ("tenant.x", "not one message"),
        ("{tenant}", "there is no field"),
    ] {
        let access = format!("scope: \"do\" tenant_field: \"{field}\"");
        let problem = problem(UNARY, &access, "subject: \"do\"");
        assert!(problem.contains(told) && problem.contains("`tenant_field`"), "{field}: {problem}");
    }
}

#[test]
fn a_rule_for_tenants_fits_its_route() {
    for (types, access, route, told) in [
        (UNARY, FIELD, "", "has `tenant_field`, but no route"),
        (UNARY, FIELD, "subject: \"do\" internal: true", "but is internal"),
        (WATCH, FIELD, "subject: \"do\" kind: KIND_SUBSCRIBE", "reads the messages of all tenants"),
        (
            UNARY,
            "public: true",
            "subject: \"do.{$tenant}\"",
            "is public, but its subject has the caller's tenant",
        ),
        (
            UNARY,
            "scope: \"do\" across_tenants: true",
            "subject: \"do.{$tenant}\"",
            "its subject keeps tenants apart",
        ),
    ] {
        let problem = problem(types, access, route);
        assert!(problem.contains(told), "{access} {route}: {problem}");
    }
    for subject in ["do.{tenant}", "do.{$tenant}"] {
        let route = format!("subject: \"{subject}\" kind: KIND_SUBSCRIBE");
        assert!(accepted(&described(WATCH, FIELD, &route)).warnings().is_empty(), "{subject}");
    }
}

#[test]
fn a_route_that_keeps_no_tenants_apart_is_pointed_out_where_messages_are_shared() {
    let warned = |types: &str, access: &str, route: &str| {
        let catalog = accepted(&described(types, access, route));
        catalog.warnings().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    let event = "subject: \"do\" kind: KIND_EMIT";
    let stored = "subject: \"do\" kind: KIND_EMIT_DURABLE";
    let watch = "subject: \"do.{tenant}\" kind: KIND_SUBSCRIBE";
    for (types, route, does) in [
        (EVENT, event, "emits"),
        ("(Thing) returns (Receipt)", stored, "emits"),
        ("(stream Thing) returns (Receipt)", stored, "emits"),
        (WATCH, watch, "reads"),
    ] {
        let warning = warned(types, "scope: \"do\"", route);
        assert!(
            warning.contains(&format!("every caller with the scope do {does} for every tenant")),
            "{warning}"
        );
        assert!(warning.contains("`{$tenant}`") && warning.contains("`across_tenants: true`"), "{warning}");
        let known = warned(types, "authenticated: true", route);
        assert!(known.contains(&format!("every caller {does} for every tenant")), "{known}");
        for meant in ["public: true", "scope: \"do\" across_tenants: true", FIELD] {
            assert_eq!(warned(types, meant, route), "", "{meant}");
        }
        assert_eq!(warned(types, "scope: \"do\"", &route.replace("do", "do.{$tenant}")), "");
    }
    assert_eq!(warned(UNARY, "scope: \"do\"", "subject: \"do\""), "", "its service knows whom it answers");
}

#[test]
fn where_callers_are_known_every_rpc_has_a_rule() {
    let bare = accepted(&described(UNARY, "", "subject: \"do\""));
    let findings = bare.requires_rules().unwrap_err().to_string();
    assert!(findings.starts_with("test.proto:4: acme.Things.Do: has no access rule"), "{findings}");
    assert!(findings.contains("{public: true}"), "{findings}");
    assert!(bare.warnings()[0].problem.contains("has no access rule"), "{:?}", bare.warnings());
    for catalog in [
        accepted(&described(UNARY, "", "subject: \"do\" internal: true")),
        accepted(&described(UNARY, "public: true", "subject: \"do\"")),
    ] {
        assert_eq!(catalog.requires_rules(), Ok(()));
    }
}

#[test]
fn a_change_of_access_breaks_what_it_takes_away() {
    let of = |access: &str| accepted(&described(UNARY, access, "subject: \"do\""));
    let breaks = |before: &str, after: &str| {
        let found: Vec<String> =
            Catalog::breaking(&of(before), &of(after)).iter().map(ToString::to_string).collect();
        found.join("\n")
    };
    let (public, known, scope) = ("public: true", "authenticated: true", "scope: \"do\"");
    let other = "scope: \"do\" tenant_field: \"inner.tenant\"";
    for (before, after) in [("", public), (scope, "scope: \"do\" across_tenants: true"), (FIELD, FIELD)] {
        assert_eq!(breaks(before, after), "", "{before} → {after}");
    }
    for (before, after, told) in [
        (public, known, "its access was public, and is authenticated"),
        (known, scope, "its access was authenticated, and is scope do"),
        (scope, public, "its access was scope do, and is public"),
        (scope, known, "its access was scope do, and is authenticated"),
        (known, "", "its access rule (authenticated) was removed"),
        ("", known, "it had no access rule, and has one (authenticated)"),
        (scope, FIELD, "its field \"tenant\" has to be the caller's tenant"),
        (FIELD, scope, "its field \"tenant\" no longer has to be the caller's tenant"),
        (
            FIELD,
            other,
            "its field \"tenant\" had to be the caller's tenant, and now \"inner.tenant\" has to be",
        ),
    ] {
        let found = breaks(before, after);
        assert!(found.contains(told), "{before} → {after}: {found}");
    }
}

//! Flags about contracts that lie on NATS, and whether they may be served as configured. Must not read a bucket.

use anyhow::bail;
use catalog_bucket::{ActiveSet, BucketName};
use clap::Args;

use super::Serve;
use crate::contracts::Outside;

/// Contracts of a bucket, beside those of files.
#[derive(Debug, Clone, Default, Args)]
#[group(skip)]
pub struct Source {
    /// Bucket on NATS with contracts to serve, as `gateway catalog push` maintains it; needs JetStream and --catalog-allow
    #[arg(long, env = "GW_CATALOG_BUCKET", value_parser = BucketName::parse, value_name = "NAME")]
    pub catalog_bucket: Option<BucketName>,
    /// Subjects that contracts of the bucket may use, separated by commas, like `bookstore.>`: routes with others are
    /// refused
    #[arg(long, env = "GW_CATALOG_ALLOW", value_delimiter = ',', value_parser = pattern, value_name = "SUBJECT")]
    pub catalog_allow: Vec<String>,
    /// Serve contracts of the bucket although callers are not authenticated: anybody who reaches the gateway can call
    /// what others publish there
    #[arg(long, env = "GW_ALLOW_ANONYMOUS")]
    pub allow_anonymous: bool,
}

impl Source {
    /// These sets, with what they may use.
    pub(crate) fn outside(&self, sets: Vec<ActiveSet>) -> Outside {
        Outside { sets, allow: self.catalog_allow.clone() }
    }
}

impl Serve {
    /// Refuses a bucket without subjects that its contracts may use, or whose contracts anybody could call.
    pub(crate) fn check_bucket(&self) -> anyhow::Result<()> {
        let Some(bucket) = self.bucket.catalog_bucket else {
            if !self.bucket.catalog_allow.is_empty() {
                bail!(
                    "GW_CATALOG_ALLOW is for contracts of a bucket: name it with --catalog-bucket (GW_CATALOG_BUCKET)"
                );
            }
            return Ok(());
        };
        if self.bucket.catalog_allow.is_empty() {
            bail!(
                "the contracts of the bucket {bucket} may use no subject: name those of their services, like \
                 --catalog-allow 'bookstore.>' (GW_CATALOG_ALLOW)"
            );
        }
        if !self.access.required() && !self.bucket.allow_anonymous {
            bail!(
                "callers are not authenticated, and could call whatever is published in the bucket {bucket}: configure \
                 GW_JWT_JWKS, GW_JWT_SECRET_FILE, GW_API_KEYS, or GW_TLS_CLIENTS or GW_TLS_CLIENT_SCOPES with \
                 GW_TLS_CLIENT_CA, or allow it with --allow-anonymous (GW_ALLOW_ANONYMOUS=true)"
            );
        }
        Ok(())
    }
}

/// A pattern of subjects, as NATS writes them.
fn pattern(text: &str) -> Result<String, String> {
    let tokens: Vec<_> = text.split('.').collect();
    let last = tokens.len() - 1;
    let is_token =
        |token: &str| token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    let fits = |(at, token): (usize, &&str)| match *token {
        "" => false,
        ">" => at == last,
        "*" => true,
        token => is_token(token),
    };
    match tokens.iter().enumerate().all(fits) {
        true => Ok(text.to_owned()),
        false => {
            Err("write tokens of [A-Za-z0-9_-] joined by dots, like bookstore.> or bookstore.*.get"
                .to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve(change: impl FnOnce(&mut Serve)) -> Result<(), String> {
        let mut config = Serve::at("nats://127.0.0.1:4222");
        config.bucket.catalog_bucket = Some(BucketName::parse("contracts").unwrap());
        config.bucket.catalog_allow = vec!["bookstore.>".to_owned()];
        config.access.api_keys = Some("keys".into());
        change(&mut config);
        config.check_bucket().map_err(|error| error.to_string())
    }

    #[test]
    fn a_bucket_is_served_to_known_callers_on_subjects_that_are_named() {
        serve(|_| {}).unwrap();
        let nothing = serve(|config| config.bucket.catalog_allow.clear()).unwrap_err();
        assert!(nothing.contains("--catalog-allow"), "{nothing}");
        let anybody = serve(|config| config.access.api_keys = None).unwrap_err();
        assert!(anybody.contains("GW_API_KEYS") && anybody.contains("--allow-anonymous"), "{anybody}");
        serve(|config| (config.access.api_keys, config.bucket.allow_anonymous) = (None, true)).unwrap();
        let useless = serve(|config| config.bucket.catalog_bucket = None).unwrap_err();
        assert!(useless.contains("GW_CATALOG_BUCKET"), "{useless}");
    }

    #[test]
    fn a_pattern_is_one_of_nats() {
        assert!(["a", "a.>", "a.*.b", ">", "*"].iter().all(|text| pattern(text).is_ok()));
        assert!(["", "a.", ".a", "a.>.b", "a.b*", "$KV.>", "a b"].iter().all(|text| pattern(text).is_err()));
    }
}

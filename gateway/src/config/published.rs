//! Whether contracts of a bucket may be served as configured. Must not read a bucket.

use anyhow::bail;

use super::Serve;

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

#[cfg(test)]
mod tests {
    use catalog_bucket::BucketName;

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
}

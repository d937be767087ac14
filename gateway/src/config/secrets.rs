//! Files with secrets that every user of this machine may read. Must never read one.

use std::path::Path;

use super::Serve;

impl Serve {
    /// Warns of each; those for NATS are told of where they are read.
    pub(crate) fn warn_of_exposed_secrets(&self) {
        for (variable, file) in self.secrets().filter(|(_, file)| cli::file::is_newly_exposed(file)) {
            tracing::warn!(
                "{} ({variable}) has a secret, and every user of this machine may read it: chmod o=",
                file.display()
            );
        }
    }

    fn secrets(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let files = [("GW_TLS_KEY", &self.tls.tls_key), ("GW_JWT_SECRET_FILE", &self.access.jwt_secret_file)];
        files.into_iter().filter_map(|(variable, file)| Some((variable, file.as_deref()?)))
    }
}

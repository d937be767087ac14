//! Stock on hand, set from a file.

use std::path::PathBuf;

use inventory_worker::file::{export, import};

use crate::harness::system::{System, until};

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

#[tokio::test]
async fn an_import_is_absolute_and_seen_by_workers_that_run() {
    let system = System::builder().stock("lamp", 5).stock("rug", 1).start().await;
    let folder = Folder::new();
    let file = folder.file("stock.csv", "product,on_hand\nlamp,7\nsofa,0\n");
    for _ in 0..2 {
        import(&file, false, false, &system.worker.nats).await.unwrap();
        assert_eq!((system.stock("lamp").await, system.stock("rug").await), ((7, 0), (1, 0)));
    }
    let exported = folder.file("exported.csv", "");
    export(&exported, &system.worker.nats).await.unwrap();
    assert_eq!(std::fs::read_to_string(exported).unwrap(), "product,on_hand\nlamp,7\nrug,1\nsofa,0\n");
}

#[tokio::test]
async fn a_file_with_bad_lines_imports_nothing_unless_they_may_be_skipped() {
    let system = System::builder().stock("lamp", 5).start().await;
    system.order("lamp", 3).await.unwrap();
    let folder = Folder::new();
    // The third line is less than what is reserved.
    let file = folder.file("stock.csv", "product,on_hand\nrug,many\nlamp,2\nsofa,4\n");
    let error = import(&file, false, false, &system.worker.nats).await.unwrap_err().to_string();
    assert!(error.starts_with("2 bad lines; nothing was imported"), "{error}");
    assert!(!system.check("sofa").await.unwrap());
    import(&file, true, false, &system.worker.nats).await.unwrap();
    until("the good line is there", async || system.check("sofa").await.unwrap()).await;
    assert_eq!(system.stock("lamp").await, (5, 3));
}

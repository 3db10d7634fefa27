//! Changes on a real disk, seen in real time.

use std::{fs, os::unix::fs::symlink, path::PathBuf, time::Duration};

use tokio::sync::mpsc;

use super::watch;
use crate::{
    files::tests::{Folder, service},
    manifest::{Contents, Manifests},
    read,
};

/// Names of the objects of each reading, or the first error.
struct Readings(mpsc::Receiver<Manifests>);

impl Readings {
    async fn next(&mut self) -> Vec<String> {
        let next = tokio::time::timeout(Duration::from_mins(1), self.0.recv()).await;
        let manifests = next.expect("a change is noticed in time").expect("still watching");
        if manifests.has_errors() {
            return vec![manifests.problems[0].message.clone()];
        }
        manifests.objects.iter().map(|object| object.name.to_string()).collect()
    }

    async fn check_quiet(&mut self, during: Duration) {
        let next = tokio::time::timeout(during, self.0.recv()).await;
        assert!(next.is_err(), "nothing has changed: {next:?}");
    }
}

/// Runs the test beside a watch of these paths.
async fn check<F: Future<Output = ()>>(
    paths: Vec<PathBuf>,
    known: Contents,
    test: impl FnOnce(Readings) -> F,
) {
    let (tell, readings) = mpsc::channel(16);
    let apply = move |manifests| tell.try_send(manifests).expect("few readings");
    tokio::select! {
        () = watch(paths, known, apply) => panic!("the watch has ended"),
        () = test(Readings(readings)) => {}
    }
}

#[tokio::test]
async fn every_change_is_told_once_good_or_broken() {
    let folder = Folder::new("changes");
    let file = folder.write("a.yaml", service("one"));
    let known = read(std::slice::from_ref(&file)).contents;
    check(vec![file], known, async |mut readings| {
        readings.check_quiet(Duration::from_millis(300)).await;
        folder.write("a.yaml", service("two"));
        assert_eq!(readings.next().await, ["two"]);
        folder.write("a.yaml", "kind: [");
        assert!(readings.next().await[0].starts_with("not valid YAML"));
        // Longer than it takes to look again.
        readings.check_quiet(Duration::from_millis(2500)).await;
        folder.write("a.yaml", service("three"));
        assert_eq!(readings.next().await, ["three"]);
    })
    .await;
}

#[tokio::test]
async fn the_way_editors_and_config_maps_write_is_seen() {
    let folder = Folder::new("swaps");
    let file = folder.write("a.yaml", service("one"));
    for version in ["..1", "..2"] {
        let path = folder.path().join(version);
        fs::create_dir(&path).expect("a folder");
        fs::write(path.join("b.yaml"), service(&format!("v{version}").replace('.', "")))
            .expect("written");
    }
    symlink("..1", folder.path().join("..data")).expect("a link");
    symlink("..data/b.yaml", folder.path().join("b.yaml")).expect("a link");
    let known = read(&[file, folder.path().join("b.yaml")]).contents;
    check(vec![folder.path().to_owned()], known, async |mut readings| {
        // An editor writes another file and puts it in the place of the old one.
        let other = folder.write("a.yaml~", service("two"));
        fs::rename(other, folder.path().join("a.yaml")).expect("renamed");
        assert_eq!(readings.next().await, ["two", "v1"]);
        // Kubernetes exchanges the link to all files.
        symlink("..2", folder.path().join("..data_tmp")).expect("a link");
        fs::rename(folder.path().join("..data_tmp"), folder.path().join("..data"))
            .expect("renamed");
        assert_eq!(readings.next().await, ["two", "v2"]);
        folder.write("c.yaml", service("three"));
        assert_eq!(readings.next().await, ["two", "v2", "three"]);
        fs::remove_file(folder.path().join("a.yaml")).expect("removed");
        assert_eq!(readings.next().await, ["v2", "three"]);
    })
    .await;
}

#[tokio::test]
async fn a_path_that_is_not_there_yet_is_noticed_when_it_comes() {
    let folder = Folder::new("late");
    let file = folder.path().join("sub").join("a.yaml");
    let known = read(std::slice::from_ref(&file)).contents;
    check(vec![file.clone()], known, async |mut readings| {
        fs::create_dir(folder.path().join("sub")).expect("a folder");
        fs::write(&file, service("one")).expect("written");
        assert_eq!(readings.next().await, ["one"]);
    })
    .await;
}

#[tokio::test]
async fn an_unknown_reading_is_told_at_once() {
    let folder = Folder::new("first");
    let file = folder.write("a.yaml", service("one"));
    check(vec![file], Contents::default(), async |mut readings| {
        assert_eq!(readings.next().await, ["one"]);
    })
    .await;
}

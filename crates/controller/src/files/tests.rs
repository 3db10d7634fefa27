//! Files and folders on a real disk.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{FILE_BYTES_MAX, read};
use crate::{FoldOptions, Object, fold, manifest::Manifests};

/// A folder that is gone after the test.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Self {
        let name = format!("controller-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::remove_dir_all(&path).ok();
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).expect("written");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

pub(crate) fn service(name: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{}}\n")
}

/// Names of the objects, then the problems without the folder.
fn check(folder: &Folder, paths: &[PathBuf], names: &[&str], problems: &[&str]) -> Manifests {
    let manifests = read(paths);
    let found: Vec<&str> = manifests.objects.iter().map(|object| &*object.name).collect();
    assert_eq!(found, names);
    let prefix = format!("{}/", folder.path().display());
    let found: Vec<String> =
        manifests.problems.iter().map(|one| one.to_string().replace(&prefix, "")).collect();
    assert_eq!(found, problems);
    manifests
}

#[test]
fn a_folder_is_read_in_order_without_hidden_and_other_files() {
    let folder = Folder::new("order");
    for name in ["b.yaml", "a.yml", "c.json", ".hidden.yaml", "readme.md", "d.yaml.bak"] {
        folder.write(name, service(&name.replace('.', "-")));
    }
    fs::create_dir(folder.path().join("nested.yaml")).expect("a folder");
    let paths = [folder.path().to_owned()];
    let manifests = check(&folder, &paths, &["a-yml", "b-yaml", "c-json"], &[]);
    let created: Vec<u64> = manifests.objects.iter().map(|object| object.created).collect();
    assert_eq!(created, [1, 2, 3]);
}

#[test]
fn a_file_named_twice_is_read_once() {
    let folder = Folder::new("twice");
    let path = folder.write("a.yaml", service("a"));
    let dotted = folder.path().join(".").join("a.yaml");
    check(&folder, &[path, folder.path().to_owned(), dotted], &["a"], &[]);
}

#[test]
fn an_object_in_two_files_is_told_with_both_places() {
    let folder = Folder::new("both");
    folder.write("a.yaml", service("x"));
    folder.write("b.yaml", format!("# other\n{}", service("x")));
    let paths = [folder.path().to_owned()];
    let problem = "b.yaml:2: Service default/x: given twice, first at a.yaml:1; keep one of them";
    check(&folder, &paths, &["x"], &[problem]);
}

#[test]
fn what_cannot_be_read_is_told_and_the_rest_is_read() {
    let folder = Folder::new("unreadable");
    let good = folder.write("good.yaml", service("good"));
    let latin = folder.write("latin.yaml", b"# fine\n# caf\xe9\n");
    let missing = folder.path().join("missing.yaml");
    let large = folder.path().join("large.yaml");
    let file = fs::File::create(&large).expect("created");
    file.set_len(FILE_BYTES_MAX + 1).expect("sparse");
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).expect("a folder");
    let problems = [
        "empty: no file in this folder ends in .yaml, .yml or .json",
        "missing.yaml: no such file or folder",
        "latin.yaml: not UTF-8 text, from line 2 on; save it as UTF-8",
        "large.yaml: larger than 16 MiB; split the file",
        "/dev/null: not a file",
    ];
    let paths = [missing, latin, large, empty, PathBuf::from("/dev/null"), good];
    assert!(check(&folder, &paths, &["good"], &problems).has_errors());
}

#[test]
fn the_manifests_of_the_tutorial_work_verbatim() {
    let testdata = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let read = |names: &[&str]| {
        let manifests = read(&names.iter().map(|name| testdata.join(name)).collect::<Vec<_>>());
        let told: Vec<String> =
            manifests.problems.iter().map(|problem| problem.message.clone()).collect();
        assert_eq!(
            told,
            [
                "passed over: v1 ConfigMap means nothing to the gateway",
                "passed over: apps/v1 Deployment means nothing to the gateway",
            ]
        );
        manifests.objects
    };
    let common = ["endpoints.yaml", "seed/vllm-service.yaml", "seed/gateway.yaml"];
    let step = |more: &[&str]| read(&[&common, more].concat());
    let states = |objects: &[Object], name: &str| -> Vec<String> {
        let folded = fold(objects, &FoldOptions::default());
        let status = folded.statuses.iter().find(|status| &*status.name == name).expect(name);
        let state = |one: &crate::Condition| format!("{}={}", one.name, one.status.name());
        status.conditions.iter().map(state).collect()
    };
    let fine = ["Accepted=True", "ResolvedRefs=True"];

    // Traditional balancing first, then step by step; each step waits for both conditions.
    let traditional = step(&["seed/virtualservice.yaml"]);
    assert_eq!(states(&traditional, "llm-vs"), fine);
    let pool = step(&["seed/inferencepool.yaml"]);
    assert_eq!(states(&pool, "vllm-llama2-7b-pool"), fine);
    let model = step(&["seed/inferencepool.yaml", "seed/inferencemodel.yaml"]);
    assert_eq!(states(&model, "inferencemodel-sample"), fine);
    let all = step(&[
        "seed/inferencepool.yaml",
        "seed/inferencemodel.yaml",
        "seed/llmroute.yaml",
        "seed/virtualservice.yaml",
    ]);
    let folded = fold(&all, &FoldOptions::default());
    assert_eq!(folded.problems, []);
    let routes: Vec<&str> = folded.desired.routes.iter().map(|route| &*route.name).collect();
    assert_eq!(routes, ["default/test-llm-route", "default/llm-vs"]);
    let sizes: Vec<usize> = folded.desired.pools.iter().map(|pool| pool.endpoints.len()).collect();
    assert_eq!(sizes, [3, 3]);
}

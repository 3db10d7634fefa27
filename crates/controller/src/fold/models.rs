//! What becomes of each model's requests.

use std::{collections::BTreeMap, sync::Arc};

use picker::{ModelSpec, ObjectiveSpec, PoolKey, TargetModel};

use super::{DISABLED, DISABLED_MESSAGE, World, pools::Pools};
use crate::{
    object::{Object, Path, Spec},
    resource::Target,
    status::Verdict,
};

/// Who decides about a model of a pool. `None` is every model nobody names.
type Names<'o> = BTreeMap<(PoolKey, Option<String>), &'o Object>;

pub(super) fn fold<'o>(world: &mut World<'o>, pools: &mut Pools<'o>) {
    let mut names = Names::new();
    // An InferenceModel goes before any rewrite, however old.
    models(world, pools, &mut names);
    rewrites(world, pools, &mut names);
    objectives(world, pools);
    for spec in pools.all_mut() {
        spec.objectives.sort_by(|a, b| a.name.cmp(&b.name));
    }
    for (pool, _) in names.into_keys() {
        if let Some(spec) = pools.get_mut(&pool) {
            spec.models
                .sort_by(|a, b| (a.model.is_none(), &a.model).cmp(&(b.model.is_none(), &b.model)));
        }
    }
}

fn models<'o>(world: &mut World<'o>, pools: &mut Pools<'o>, names: &mut Names<'o>) {
    for (object, model) in world.all(|spec| match spec {
        Spec::InferenceModel(model) => Some(model),
        _ => None,
    }) {
        let mut verdict = Verdict::new(object);
        find_pool(world, &mut verdict, pools, &model.pool, "spec.poolRef");
        let key = Pools::key(&model.pool);
        let name = Some(model.model.clone());
        let place = (key.clone(), name.clone());
        if let Some(winner) = names.get(&place) {
            verdict.refuse("ModelNameInUse", "spec.modelName", in_use(winner, &model.model));
        } else if verdict.is_accepted() {
            names.insert(place, object);
            if let Some(spec) = pools.get_mut(&key) {
                let targets = shares(&model.targets, Some(&model.model));
                spec.models.push(ModelSpec { model: name, priority: model.priority, targets });
            }
        }
        world.verdicts.push(verdict);
    }
}

fn in_use(winner: &Object, model: &str) -> String {
    format!("{winner} decides about model {model} already")
}

fn rewrites<'o>(world: &mut World<'o>, pools: &mut Pools<'o>, names: &mut Names<'o>) {
    for (object, rewrite) in world.all(|spec| match spec {
        Spec::InferenceModelRewrite(rewrite) => Some(rewrite),
        _ => None,
    }) {
        let mut verdict = Verdict::new(object);
        find_pool(world, &mut verdict, pools, &rewrite.pool, "spec.poolRef");
        let key = Pools::key(&rewrite.pool);
        let mut lost = Vec::new();
        let mut won = 0;
        for rule in rewrite.rules.iter().filter(|_| verdict.is_accepted()) {
            let of_rule: Vec<Option<String>> = match rule.models.as_slice() {
                [] => vec![None],
                models => models.iter().cloned().map(Some).collect(),
            };
            for name in of_rule {
                let place = (key.clone(), name.clone());
                if let Some(winner) = names.get(&place) {
                    lost.push(in_use(winner, name.as_deref().unwrap_or("(any)")));
                    continue;
                }
                won += 1;
                names.insert(place, object);
                if let Some(spec) = pools.get_mut(&key) {
                    let targets = shares(&rule.targets, None);
                    spec.models.push(ModelSpec { model: name, priority: 0, targets });
                }
            }
        }
        for message in lost {
            if won == 0 {
                verdict.refuse("ModelNameInUse", "spec.rules", message);
            } else {
                verdict.caution("spec.rules", message);
            }
        }
        world.verdicts.push(verdict);
    }
}

fn objectives<'o>(world: &mut World<'o>, pools: &mut Pools<'o>) {
    let mut names: BTreeMap<(PoolKey, &str), &Object> = BTreeMap::new();
    for (object, objective) in world.all(|spec| match spec {
        Spec::InferenceObjective(objective) => Some(objective),
        _ => None,
    }) {
        let mut verdict = Verdict::new(object);
        find_pool(world, &mut verdict, pools, &objective.pool, "spec.poolRef");
        verdict.remark(format!("priority {}", objective.priority));
        let key = Pools::key(&objective.pool);
        let name = (key.clone(), &*object.name);
        if let Some(winner) = names.get(&name) {
            // Of another group: those of one group are told apart by their names.
            let (group, place) = (winner.group, &winner.place);
            let message =
                format!("there is one of that name already, of group {group}, at {place}");
            verdict.refuse("Conflicted", "metadata.name", message);
        } else {
            names.insert(name, object);
            if let Some(spec) = pools.get_mut(&key) {
                let (name, priority) = (Arc::clone(&object.name), objective.priority);
                spec.objectives.push(ObjectiveSpec { name, priority });
            }
        }
        world.verdicts.push(verdict);
    }
}

/// Objects to a pool that is not there or switched off.
pub(super) fn find_pool(
    world: &World<'_>,
    verdict: &mut Verdict<'_>,
    pools: &Pools<'_>,
    pool: &Path,
    field: &'static str,
) {
    if !world.extension_on {
        verdict.refuse(DISABLED, "", DISABLED_MESSAGE.to_owned());
    } else if !pools.contains(&Pools::key(pool)) {
        let message = format!("there is no InferencePool {pool}");
        verdict.unresolved("PoolNotFound", field, message);
    }
}

/// The targets with their weights: equal ones if none is given, the model itself if there is no
/// target.
fn shares(targets: &[Target], model: Option<&str>) -> Vec<TargetModel> {
    let own = model.filter(|_| targets.is_empty());
    let own = own.map(|name| TargetModel { name: name.into(), weight: 1 });
    let given = targets.iter().map(|target| TargetModel {
        name: Arc::from(target.name.as_str()),
        weight: target.weight.unwrap_or(1),
    });
    own.into_iter().chain(given).collect()
}

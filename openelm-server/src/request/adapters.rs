//! The model and the adapters of a request, by their configured names.

use crate::{api_error::ApiError, app::App, fields::Fields};

/// Names of adapters with their strengths.
pub(crate) type ActiveAdapters = Vec<(String, f32)>;

/// The name of the model and the active adapters, of the fields `model` and `adapters`; no adapters
/// for those of the server. `model` may be the name of an adapter, which is then the only one.
pub(super) fn adapters(
    fields: &mut Fields,
    app: &App,
) -> Result<(String, Option<ActiveAdapters>), ApiError> {
    let own = &app.options.served_model_name;
    let known = &app.options.adapters;
    let find = |name: &str| known.iter().find(|(known, _)| known == name).cloned();
    let model = fields.string("model")?.unwrap_or_else(|| own.clone());
    let of_model = if model == *own {
        None
    } else {
        let missing = || ApiError::no_model(&model, &names(app));
        Some(vec![find(&model).ok_or_else(missing)?])
    };
    let Some(names) = fields.strings("adapters")? else {
        return Ok((model, of_model));
    };
    if of_model.is_some() {
        return Err(ApiError::field(
            "adapters",
            "not with an adapter as the model",
        ));
    }
    let mut active = ActiveAdapters::new();
    for name in names {
        if active.iter().any(|(other, _)| *other == name) {
            let problem = format!("expected each name once, found {name:?} twice");
            return Err(ApiError::field("adapters", problem));
        }
        active.push(find(&name).ok_or_else(|| {
            let problem = format!("expected names of the server's adapters, found {name:?}");
            ApiError::field("adapters", problem)
        })?);
    }
    Ok((model, Some(active)))
}

/// The names that `model` may have.
fn names(app: &App) -> String {
    let adapters = app.options.adapters.iter().map(|(name, _)| name);
    let all = [&app.options.served_model_name].into_iter().chain(adapters);
    let all: Vec<String> = all.map(|name| format!("{name:?}")).collect();
    all.join(" or ")
}

//! The constraint of a structured text in the fields of a request.

use openelm_core::{
    Error,
    constraint::{AtLimit, Constraint, ConstraintKind},
    generation::GenerateOptions,
};

use crate::{api_error::ApiError, app::App, fields::Fields};

/// The schema of `response_format` with the type `json_object`.
const ANY_OBJECT: &str = "{\"type\": \"object\"}";

/// Sets the constraint of `response_format`, `json_schema`, `regex`, `grammar` or `choice`, and
/// `at_limit`. Returns the name of the field with the constraint.
pub(super) fn constraint(
    fields: &mut Fields,
    options: &mut GenerateOptions,
) -> Result<Option<&'static str>, ApiError> {
    let mut kinds = Vec::new();
    if let Some(format) = fields.object("response_format")? {
        kinds.extend(response_format(format)?.map(|kind| ("response_format", kind)));
    }
    if let Some(schema) = fields.value("json_schema") {
        kinds.push((
            "json_schema",
            ConstraintKind::JsonSchema(schema.to_string()),
        ));
    }
    if let Some(regex) = fields.string("regex")? {
        kinds.push(("regex", ConstraintKind::Regex(regex)));
    }
    if let Some(grammar) = fields.string("grammar")? {
        kinds.push(("grammar", ConstraintKind::Grammar(grammar)));
    }
    if let Some(choices) = fields.strings("choice")? {
        kinds.push(("choice", ConstraintKind::Choice(choices)));
    }
    if let [(first, _), (second, _), ..] = &*kinds {
        return Err(ApiError::field(*second, format!("not with {first}")));
    }
    let (field, kind) = kinds.pop().unzip();
    options.constraint = kind;
    if let Some(name) = fields.string("at_limit")? {
        options.at_limit = match &*name {
            "stop" => AtLimit::Stop,
            "error" => AtLimit::Error,
            "close" => AtLimit::Close,
            _ => {
                let problem = format!("expected stop, error or close, found {name:?}");
                return Err(ApiError::field("at_limit", problem));
            }
        };
        if options.constraint.is_none() {
            let problem =
                "no effect without response_format, json_schema, regex, grammar or choice";
            return Err(ApiError::field("at_limit", problem));
        }
    }
    Ok(field)
}

/// Compiles the constraint of the field `field`, which a generation then finds compiled. Takes up to
/// seconds.
pub(super) fn compile(field: &str, kind: &ConstraintKind, app: &App) -> Result<(), ApiError> {
    let eos = app.model.info().config.eos_token_id() as u32;
    let compiled = Constraint::new(app.model.tokenizer(), kind, &[], eos);
    match compiled {
        Err(Error::Option { problem, .. }) => Err(ApiError::field(field, problem)),
        compiled => Ok(_ = compiled?),
    }
}

/// The constraint of a `response_format`; none for `text`.
fn response_format(mut format: Fields) -> Result<Option<ConstraintKind>, ApiError> {
    let kind = format.string("type")?.unwrap_or_default();
    let constraint = match &*kind {
        "text" => None,
        "json_object" => Some(ConstraintKind::JsonSchema(ANY_OBJECT.into())),
        "json_schema" => {
            let missing = ApiError::field("response_format.json_schema", "it is missing");
            let mut schema = format.object("json_schema")?.ok_or(missing)?;
            // Names and descriptions are for the model, which does not read them.
            schema.string("name")?;
            schema.string("description")?;
            // The text always follows the whole schema.
            schema.boolean("strict")?;
            let name = schema.name("schema");
            let missing = ApiError::field(name, "it is missing");
            let text = schema.value("schema").ok_or(missing)?.to_string();
            schema.finish()?;
            Some(ConstraintKind::JsonSchema(text))
        }
        _ => {
            let problem = format!("expected text, json_object or json_schema, found {kind:?}");
            return Err(ApiError::field("response_format.type", problem));
        }
    };
    format.finish()?;
    Ok(constraint)
}

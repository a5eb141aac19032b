//! The OpenAPI 3.1 document, made from the descriptions that routes are registered with. Its schemas are JSON Schema
//! 2020-12, derived from the very types that are served.

use axum::Router;
use axum::handler::Handler;
use axum::http::Method;
use axum::routing::{MethodFilter, on};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::problem::Problem;

const PROBLEM: &str = "application/problem+json";
pub(super) const JSON: &str = "application/json";
pub(super) const YAML: &str = "application/yaml";
pub(super) const TEXT: &str = "text/plain; charset=utf-8";

/// What `/openapi.json` says of one method of one path.
pub(super) struct Operation {
    method: Method,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    query: Option<Schema>,
    request: Option<Value>,
    success: (u16, Value),
    open: bool,
}

/// Routes and their descriptions, put together.
pub(super) struct Catalogue<S> {
    router: Router<S>,
    generator: SchemaGenerator,
    paths: Map<String, Value>,
}

impl<S: Clone + Send + Sync + 'static> Catalogue<S> {
    pub(super) fn new() -> Self {
        let settings = SchemaSettings::draft2020_12()
            .with(|settings| settings.definitions_path = "/components/schemas".into());
        Self {
            router: Router::new(),
            generator: settings.into_generator(),
            paths: Map::new(),
        }
    }

    /// Describes an operation that answers 200 with a `T`.
    pub(super) fn answering<T: JsonSchema>(
        &mut self,
        (method, path): (Method, &'static str),
        id: &'static str,
        summary: &'static str,
    ) -> Operation {
        let schema = self.generator.subschema_for::<T>();
        let answer = json!({ JSON: { "schema": schema } });
        Operation {
            method,
            path,
            id,
            summary,
            query: None,
            request: None,
            success: (200, answer),
            open: false,
        }
    }

    /// The schema of a query's parameters.
    pub(super) fn query<T: JsonSchema>(&mut self) -> Schema {
        self.generator.root_schema_for::<T>()
    }

    /// The content of a body of type `T`, in one or more media types.
    pub(super) fn body<T: JsonSchema>(&mut self, types: &[&str]) -> Value {
        self.body_of(SchemaGenerator::subschema_for::<T>, types)
    }

    /// The same for a schema that has no type to be named here.
    pub(super) fn body_of(
        &mut self,
        schema: impl Fn(&mut SchemaGenerator) -> Schema,
        types: &[&str],
    ) -> Value {
        let schema = schema(&mut self.generator);
        types
            .iter()
            .map(|kind| ((*kind).to_owned(), json!({ "schema": schema })))
            .collect::<Map<_, _>>()
            .into()
    }

    /// Registers a route with its description.
    pub(super) fn serve<H, T>(mut self, operation: Operation, handler: H) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
    {
        let filter = MethodFilter::try_from(operation.method.clone())
            .expect("every method that is registered here is one that axum knows");
        self.router = self.router.route(operation.path, on(filter, handler));
        let methods = self
            .paths
            .entry(operation.path)
            .or_insert_with(|| json!({}));
        methods[operation.method.as_str().to_ascii_lowercase()] = operation.document();
        self
    }

    /// All routes, and the document that describes them.
    pub(super) fn finish(mut self) -> (Router<S>, Value) {
        let problem = self.generator.subschema_for::<Problem>();
        let document = json!({
            "openapi": "3.1.0",
            "info": {
                "title": "Pipewright",
                "version": env!("CARGO_PKG_VERSION"),
                "description": "Pipes that copy MySQL and MariaDB tables into ClickHouse and keep them in step.",
                "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
            },
            "servers": [{ "url": "/" }],
            "security": [{ "token": [] }, {}],
            "paths": self.paths,
            "components": {
                "schemas": self.generator.take_definitions(true),
                "responses": { "Problem": {
                    "description": "What was asked cannot be done; `code` tells why.",
                    "content": { PROBLEM: { "schema": problem } },
                }},
                "securitySchemes": { "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Needed where the process was started with a token file. GET takes the role `read`, \
                                    everything else, and dead letters, `admin`.",
                }},
            },
        });
        (self.router, document)
    }
}

impl Operation {
    pub(super) fn with_query(mut self, schema: Schema) -> Self {
        self.query = Some(schema);
        self
    }

    pub(super) fn taking(mut self, content: Value) -> Self {
        self.request = Some(content);
        self
    }

    /// Another status for success.
    pub(super) fn with_status(mut self, status: u16) -> Self {
        self.success.0 = status;
        self
    }

    /// A further media type of the answer, with its schema.
    pub(super) fn or_as(mut self, kind: &str, schema: Value) -> Self {
        self.success.1[kind] = json!({ "schema": schema });
        self
    }

    /// Answers with text and without a token being needed for it, when `open`.
    pub(super) fn text(
        (method, path): (Method, &'static str),
        id: &'static str,
        summary: &'static str,
        kind: &str,
        open: bool,
    ) -> Self {
        Self {
            method,
            path,
            id,
            summary,
            query: None,
            request: None,
            success: (200, json!({ kind: { "schema": { "type": "string" } } })),
            open,
        }
    }

    fn document(&self) -> Value {
        let mut parameters: Vec<Value> = Vec::new();
        if self.path.contains("{pipe}") {
            parameters.push(json!({
                "name": "pipe",
                "in": "path",
                "required": true,
                "description": "The pipe's name.",
                "schema": { "type": "string" },
            }));
        }
        if let Some(properties) = self
            .query
            .as_ref()
            .and_then(|schema| schema.get("properties"))
        {
            let properties = properties.as_object().into_iter().flatten();
            parameters
                .extend(properties.map(
                    |(name, schema)| json!({ "name": name, "in": "query", "schema": schema }),
                ));
        }
        let (status, content) = &self.success;
        let problem = json!({ "$ref": "#/components/responses/Problem" });
        let mut document = json!({
            "operationId": self.id,
            "summary": self.summary,
            "parameters": parameters,
            "responses": {
                status.to_string(): { "description": "Done.", "content": content },
                "4XX": problem,
                "5XX": problem,
            },
        });
        if let Some(content) = &self.request {
            document["requestBody"] = json!({ "required": true, "content": content });
        }
        if self.open {
            document["security"] = json!([]);
        }
        document
    }
}

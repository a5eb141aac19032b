//! Rows to tables by expression.

use pipewright_expression::{Expr, Failed, Predicate, TRUE, parse};
use pipewright_sdk::schema::{self, JsonSchema, schemars};
use pipewright_sdk::{
    Batch, Binding, Failure, Outcome, Problem, Rows, Shape, Table, Target, To, Transform, export,
};
use serde::{Deserialize, Serialize};

export!(Route);

/// The plugin, configured.
#[derive(Debug)]
pub struct Route {
    routes: Vec<(Expr, Goal)>,
    otherwise: Option<Goal>,
}

/// Rows to tables by expression.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Tried in order: the first that is true takes the row.
    routes: Vec<RouteConfig>,
    /// Where the other rows go.
    #[serde(default)]
    otherwise: Otherwise,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RouteConfig {
    /// The expression, such as `country = 'DE'`.
    when: String,
    /// A table at the destination; `own` is the table's own target.
    to: String,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Otherwise {
    /// Into the table's own target.
    #[default]
    Own,
    /// Nowhere.
    Drop,
}

/// A table at the destination; none: the table's own target.
type Goal = Option<String>;

/// How the pipe file names the table's own target.
const OWN: &str = "own";

impl Transform for Route {
    type Config = Config;
    type Binding = BoundRoute;

    fn new(config: Config) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut routes = Vec::new();
        if config.routes.is_empty() {
            problems.push(Problem::at("/routes", "give at least one route"));
        }
        for (index, route) in config.routes.into_iter().enumerate() {
            if route.to.is_empty() {
                problems.push(Problem::at(format!("/routes/{index}/to"), "name a table"));
            }
            match parse(&route.when) {
                Ok(expression) => {
                    routes.push((expression, (route.to != OWN).then_some(route.to)));
                }
                Err(error) => {
                    let at = format!("/routes/{index}/when");
                    problems.push(Problem::at(at, error.to_string()));
                }
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let otherwise = (config.otherwise == Otherwise::Own).then_some(None);
        Ok(Self { routes, otherwise })
    }

    fn bind(&self, table: &Table) -> Result<BoundRoute, Failure> {
        let mut shape = Shape::new();
        let mut goals: Vec<(&Goal, To)> = Vec::new();
        let mut target = |shape: &mut Shape, goal| {
            if let Some((_, target)) = goals.iter().find(|(known, _)| *known == goal) {
                return *target;
            }
            let named: &Goal = goal;
            let declared = named.as_ref().map_or_else(Target::own, Target::named);
            let declared = shape.target(declared.pass_all(table));
            goals.push((goal, declared));
            declared
        };
        let mut routes = Vec::with_capacity(self.routes.len());
        for (index, (expression, goal)) in self.routes.iter().enumerate() {
            let condition = Predicate::bind(expression, table, &mut shape).map_err(|error| {
                Failure::unsupported(format!("in `when` of route {}, {error}", index + 1))
            })?;
            routes.push((condition, target(&mut shape, goal)));
        }
        let otherwise = self.otherwise.as_ref().map(|goal| target(&mut shape, goal));
        let targets = goals.into_iter().map(|(_, target)| target).collect();
        Ok(BoundRoute {
            shape,
            routes,
            otherwise,
            targets,
        })
    }

    fn config_schema() -> Option<String> {
        Some(schema::of::<Config>())
    }
}

/// The plugin, bound to a table.
#[derive(Debug)]
pub struct BoundRoute {
    shape: Shape,
    routes: Vec<(Predicate, To)>,
    otherwise: Option<To>,
    targets: Vec<To>,
}

impl Binding for BoundRoute {
    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    fn transform(&self, batch: &Batch) -> Result<Outcome, Failure> {
        // What has not been taken by a route, or failed at one.
        let mut chosen: Vec<Choice> = vec![Choice::Open; batch.len()];
        let mut rejected = Vec::new();
        for (condition, target) in &self.routes {
            let truth = condition.evaluate(batch)?;
            for failed in Failed::of_truth(&truth) {
                if let Choice::Open = chosen[failed.row] {
                    chosen[failed.row] = Choice::Nowhere;
                    rejected.push(failed);
                }
            }
            for (choice, truth) in chosen.iter_mut().zip(truth) {
                if let (Choice::Open, TRUE) = (&choice, truth) {
                    *choice = Choice::Taken(*target);
                }
            }
        }
        let mut outputs: Vec<Rows> = self
            .targets
            .iter()
            .map(|target| Rows::to(*target))
            .collect();
        for (row, choice) in chosen.into_iter().enumerate() {
            let target = match choice {
                Choice::Taken(target) => Some(target),
                Choice::Open => self.otherwise,
                Choice::Nowhere => None,
            };
            let place =
                target.and_then(|target| self.targets.iter().position(|known| *known == target));
            if let Some(place) = place {
                outputs[place].push(row);
            }
        }
        let mut outcome = Outcome::replace(outputs);
        for failed in rejected {
            outcome = outcome.reject(failed.row, failed.code, failed.message);
        }
        Ok(outcome)
    }
}

#[derive(Clone, Copy, Debug)]
enum Choice {
    Open,
    Taken(To),
    Nowhere,
}

#[cfg(test)]
mod tests {
    use pipewright_sdk::testing::Harness;
    use pipewright_sdk::{DataType, Field};

    use super::*;

    fn refusal(config: &str) -> String {
        let fields = [
            Field::new("id", DataType::Int64).key(),
            Field::new("country", DataType::Utf8),
        ];
        Harness::<Route>::new(config, &fields)
            .map(drop)
            .unwrap_err()
    }

    #[test]
    fn a_bad_configuration_is_refused_with_all_its_places() {
        let text = refusal(r#"{"routes": [{"when": "country =", "to": ""}]}"#);
        assert!(text.contains("/routes/0/when: at character 10"), "{text}");
        assert!(text.contains("/routes/0/to: name a table"), "{text}");
        assert_eq!(
            refusal(r#"{"routes": []}"#),
            "/routes: give at least one route"
        );
        let text = refusal(r#"{"routes": [{"when": "state = 'x'", "to": "a"}]}"#);
        assert!(
            text.starts_with("in `when` of route 1, at character 1: column `state`"),
            "{text}"
        );
    }
}

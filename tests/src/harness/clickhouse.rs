//! ClickHouse over HTTP, as much as asking questions takes.

use std::time::Duration;

use anyhow::{Context, Result, bail};

/// The longest answer that is waited for: the bench's own `INSERT ... SELECT` of two million rows.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(600);

/// A client for one server, as the user `default`.
#[derive(Clone, Debug)]
pub struct ClickHouse {
    url: String,
    client: reqwest::Client,
}

impl ClickHouse {
    /// A client for the server at `url`; connects when first used.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            client: reqwest::Client::new(),
        }
    }

    /// The text of a statement's answer, without the last line end.
    pub async fn query(&self, sql: &str) -> Result<String> {
        let answer = self
            .client
            .post(&self.url)
            .timeout(ANSWER_TIMEOUT)
            .body(sql.to_owned())
            .send()
            .await?;
        let status = answer.status();
        let text = answer.text().await?;
        if !status.is_success() {
            bail!(
                "ClickHouse refuses `{}`: {}",
                shortened(sql),
                text.trim_end()
            );
        }
        Ok(text.trim_end_matches('\n').to_owned())
    }

    /// A single number.
    pub async fn number(&self, sql: &str) -> Result<u64> {
        let text = self.query(sql).await?;
        text.parse()
            .with_context(|| format!("`{text}` is no number: the answer to `{}`", shortened(sql)))
    }

    /// Rows of texts or NULLs; every selected expression is a String or Nullable(String).
    pub async fn rows(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        let text = self
            .query(&format!("{sql} FORMAT JSONCompactEachRow"))
            .await?;
        text.lines()
            .map(|line| {
                serde_json::from_str(line)
                    .with_context(|| format!("an answer to `{}`", shortened(sql)))
            })
            .collect()
    }

    /// Whether the table or view exists.
    pub async fn exists(&self, database: &str, table: &str) -> Result<bool> {
        let sql = format!(
            "SELECT count() FROM system.tables WHERE database = '{database}' AND name = '{table}'"
        );
        Ok(self.number(&sql).await? > 0)
    }
}

fn shortened(sql: &str) -> String {
    sql.chars().take(300).collect()
}

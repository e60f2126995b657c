//! Lists of principals: which ones, in what order, and how many at a time.

use super::attribute::{Path, Selection};
use super::filter::Filter;
use super::render::Shown;
use crate::error::ApiError;
use crate::gate::Directory;
use crate::store::PrincipalKind;
use crate::wire::FieldError;
use crate::wire::scim::{LIST, ListQuery, ListResponse};

/// Most principals of one answer; clients ask for the next page.
const LONGEST_PAGE: usize = 1000;

/// What is asked for of a list.
#[derive(Debug)]
pub(super) struct Page {
    kind: PrincipalKind,
    filter: Option<Filter<Path>>,
    order: Option<Path>,
    descending: bool,
    /// Counted from 0.
    first: usize,
    most: usize,
    selection: Selection,
}

impl Page {
    /// What the query says.
    ///
    /// # Errors
    /// What makes no sense, by name.
    pub(super) fn read(kind: PrincipalKind, query: &ListQuery) -> Result<Self, FieldError> {
        let path = |name: &str| Path::read_of(kind, name);
        let filter = query.filter.as_deref().map(|text| Filter::read("filter", text, &path)).transpose()?;
        let unknown = |name: &str| FieldError::conflict("sortBy", format!("there is no attribute `{name}`"));
        let order = query.sort_by.as_deref().map(|name| path(name).ok_or_else(|| unknown(name))).transpose()?;
        let descending = match query.sort_order.as_deref() {
            None | Some("ascending") => false,
            Some("descending") => true,
            Some(odd) => return Err(FieldError::value("sortOrder", "`ascending` or `descending`", odd)),
        };
        // As the standard has it: what is below 1 means 1, and a negative count 0.
        let first = number("startIndex", query.start_index.as_deref())?.map_or(0, |start| start.max(1) - 1);
        let most = number("count", query.count.as_deref())?.map_or(i64::MAX, |count| count.max(0));
        let selection = Selection::read(query.attributes.as_deref(), query.excluded_attributes.as_deref())?;
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(LONGEST_PAGE);
        Ok(Self {
            kind,
            filter,
            order,
            descending,
            first: usize::try_from(first).unwrap_or(usize::MAX),
            most,
            selection,
        })
    }

    /// The page, as the directory is now.
    ///
    /// # Errors
    /// The server's own.
    pub(super) fn of(&self, directory: &Directory) -> Result<ListResponse, ApiError> {
        let all = directory.principals().filter(|row| row.kind == self.kind).map(|row| Shown::known(row, directory));
        let holds =
            |shown: &Shown<'_>| self.filter.as_ref().is_none_or(|filter| filter.holds(&|path| shown.values(path)));
        let mut found: Vec<Shown<'_>> = all.filter(holds).collect();
        self.sort(&mut found);
        let page = found.iter().skip(self.first).take(self.most);
        let resources = page.map(|shown| Ok(shown.resource(&self.selection)?.into()));
        let resources = resources.collect::<Result<Vec<_>, ApiError>>()?;
        Ok(ListResponse {
            schemas: [LIST],
            total_results: found.len(),
            start_index: self.first.saturating_add(1),
            items_per_page: resources.len(),
            resources,
        })
    }

    /// Without another order the oldest come first, so that pages do not overlap while principals are added.
    fn sort(&self, found: &mut [Shown<'_>]) {
        let age = |shown: &Shown<'_>| (shown.row.created, shown.row.id.len(), shown.row.id.clone());
        match &self.order {
            None => found.sort_by_cached_key(age),
            Some(path) => found.sort_by_cached_key(|shown| {
                let value = shown.values(path).first().map(|value| value.to_lowercase());
                (value.is_none(), value, age(shown))
            }),
        }
        if self.descending {
            found.reverse();
        }
    }
}

fn number(field: &str, text: Option<&str>) -> Result<Option<i64>, FieldError> {
    let number = |text: &str| text.parse().map_err(|_| FieldError::value(field, "a whole number", text));
    text.map(number).transpose()
}

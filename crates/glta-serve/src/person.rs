//! Finds the user of a request.

use glta_align::{ListOptions, Recommender};

use crate::api_error::{ApiError, ApiResult};
use crate::bodies::Entry;
use crate::model::entry;
use crate::people::People;
use crate::queue::Query;
use crate::service::Service;
use glta_core::with_causes;

/// A user with all items of the user, by the ids of a recommender.
pub(crate) struct Who {
    pub(crate) query: Query,
    pub(crate) history: Vec<Entry>,
}

/// Returns the user of a request, which must have exactly one of `user` and `items`.
pub(crate) fn who(
    service: &Service,
    recommender: &Recommender,
    user: Option<&str>,
    items: Option<&[String]>,
) -> ApiResult<Who> {
    match (user, items) {
        (Some(user), None) => known_user(&service.people(), recommender, user),
        (None, Some(items)) => {
            let items = ids(recommender, items, service.config().max_items)?;
            let history = items.iter().map(|&item| entry(recommender, item, None)).collect();
            Ok(Who { query: Query::Items(items), history })
        }
        _ => Err(ApiError::bad_request("exactly one of `user` and `items` is needed")),
    }
}

/// Returns a known user with the items from the model's data and the items that were written later.
/// If the user was deleted, the items from the model's data are omitted.
fn known_user(people: &People, recommender: &Recommender, raw_id: &str) -> ApiResult<Who> {
    let known = recommender.user(raw_id).filter(|_| !people.is_forgotten(raw_id));
    let failed = |e| ApiError::internal(with_causes(&e));
    let mut items = match known {
        Some(user) => recommender.history(user).map_err(failed)?,
        None => Vec::new(),
    };
    let mut history: Vec<Entry> =
        items.iter().map(|&item| entry(recommender, item, None)).collect();
    let added = match (people.items(raw_id), known) {
        (None, None) => {
            return Err(ApiError::not_found(format!("user {raw_id:?} is not known")));
        }
        (None, Some(user)) => return Ok(Who { query: Query::User(user), history }),
        (Some(added), _) => added,
    };
    let before = items.len();
    for raw in added {
        match recommender.item(raw) {
            Some(item) if items[..before].binary_search(&item).is_ok() => {}
            Some(item) => {
                items.push(item);
                history.push(entry(recommender, item, None));
            }
            None => history.push(Entry {
                item: raw.to_owned(),
                title: String::new(),
                text: String::new(),
                fields: Default::default(),
                score: None,
            }),
        }
    }
    Ok(Who { query: Query::Items(items), history })
}

/// Returns the dense ids of items.
pub(crate) fn ids(
    recommender: &Recommender,
    raw_ids: &[String],
    allowed: usize,
) -> ApiResult<Vec<u32>> {
    if raw_ids.len() > allowed {
        let message = format!("{} items; at most {allowed} are allowed", raw_ids.len());
        return Err(ApiError::bad_request(message));
    }
    raw_ids.iter().map(|raw| item(recommender, raw)).collect()
}

/// Returns the dense id of an item.
pub(crate) fn item(recommender: &Recommender, raw_id: &str) -> ApiResult<u32> {
    let unknown = || ApiError::not_found(format!("item {raw_id:?} is not known"));
    recommender.item(raw_id).ok_or_else(unknown)
}

/// Returns the list options of a request.
pub(crate) fn options<'a>(
    service: &Service,
    recommender: &Recommender,
    exclude: &[String],
    among: Option<&[String]>,
    filter: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> ApiResult<ListOptions> {
    let allowed = service.config().max_items;
    let mut options = ListOptions::default().exclude(ids(recommender, exclude, allowed)?);
    if let Some(among) = among {
        options = options.among(ids(recommender, among, allowed)?);
    }
    for (field, value) in filter {
        options = options.filter(field, value);
    }
    Ok(options)
}

/// Returns `k`, or an error unless it is from 1 to `max_k`.
pub(crate) fn length(service: &Service, k: usize) -> ApiResult<usize> {
    let allowed = service.config().max_k;
    if k == 0 || k > allowed {
        return Err(ApiError::bad_request(format!("k is {k}; it must be 1 to {allowed}")));
    }
    Ok(k)
}

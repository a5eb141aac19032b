//! WASI for guests whose language runtime imports it (Python, JavaScript): each import is there and gives nothing.
//!
//! No code here reaches anything of the host. There is no environment, no argument and no preopened folder, so no file can
//! be named; what is written to a stream is dropped, what is read from one is at its end; clocks stand still at 0 and
//! random numbers come from a fixed seed, so that a guest's answer stays a function of its row and its configuration.
//! The values are made of the imports' own types, which is why no list of functions stands here but for the few whose
//! plain answer would let a guest wait for ever.

use wasmtime::component::types::{ComponentFunc, ComponentItem, Type};
use wasmtime::component::{
    Component, Linker, LinkerInstance, Resource, ResourceAny, ResourceType, Val,
};
use wasmtime::{Error, Result, StoreContextMut};

use crate::transform::limits::GuestState;

const PACKAGES: [&str; 7] = [
    "wasi:cli/",
    "wasi:clocks/",
    "wasi:filesystem/",
    "wasi:http/",
    "wasi:io/",
    "wasi:random/",
    "wasi:sockets/",
];

/// The generation of WASI whose types are understood here.
const GENERATION: &str = "@0.2.";

/// Bytes that a stream says it takes at once; they are dropped.
const WRITE_BYTES: u64 = 1 << 20;

/// Random bytes of one call; a runtime asks for some dozens.
const RANDOM_BYTES: u64 = 64 << 10;

/// What every resource of these imports is.
struct Nothing;

/// Whether a component may import this because it gives nothing.
pub(in crate::transform) fn gives_nothing(import: &str) -> bool {
    import.contains(GENERATION) && PACKAGES.iter().any(|package| import.starts_with(package))
}

/// Defines all imports of the component that give nothing.
pub(super) fn link(
    engine: &wasmtime::Engine,
    component: &Component,
    linker: &mut Linker<GuestState>,
) -> Result<()> {
    for (name, item) in component.component_type().imports(engine) {
        if let (true, ComponentItem::ComponentInstance(instance)) = (gives_nothing(name), item.ty) {
            let mut defined = linker.instance(name)?;
            for (name, item) in instance.exports(engine) {
                define(&mut defined, name, &item.ty)?;
            }
        }
    }
    Ok(())
}

fn define(
    instance: &mut LinkerInstance<'_, GuestState>,
    name: &str,
    item: &ComponentItem,
) -> Result<()> {
    match item {
        ComponentItem::ComponentFunc(_) => {
            let called = name.to_owned();
            instance.func_new(name, move |store, ty, arguments, results| {
                call(&called, store, &ty, arguments, results)
            })
        }
        ComponentItem::Resource(_) => {
            instance.resource(name, ResourceType::host::<Nothing>(), |_, _| Ok(()))
        }
        _ => Ok(()),
    }
}

fn call(
    name: &str,
    mut store: StoreContextMut<'_, GuestState>,
    ty: &ComponentFunc,
    arguments: &[Val],
    results: &mut [Val],
) -> Result<()> {
    // Methods are called `[method]output-stream.check-write`.
    let name = name.rsplit('.').next().unwrap_or(name);
    let special = match (name, arguments) {
        ("exit" | "exit-with-code", _) => return Err(Error::msg("the guest called exit")),
        ("poll", [Val::List(waiting)]) => {
            let ready = (0..).zip(waiting).map(|(place, _)| Val::U32(place));
            Some(Val::List(ready.collect()))
        }
        ("ready", _) => Some(Val::Bool(true)),
        ("check-write", _) => Some(Val::Result(Ok(Some(Box::new(Val::U64(WRITE_BYTES)))))),
        ("resolution", _) => Some(Val::U64(1)),
        ("get-random-bytes" | "get-insecure-random-bytes", [Val::U64(length)]) => {
            Some(random_bytes(*length)?)
        }
        ("get-random-u64" | "get-insecure-random-u64", _) => Some(Val::U64(SEED)),
        _ => None,
    };
    for (result, ty) in results.iter_mut().zip(ty.results()) {
        *result = match &special {
            // `resolution` of the wall clock is a record.
            Some(value) if !matches!((value, &ty), (Val::U64(_), Type::Record(_))) => value.clone(),
            _ => nothing(&ty, &mut store)?,
        };
    }
    arguments
        .iter()
        .try_for_each(|argument| let_go(argument, &mut store))
}

/// Gives back what the guest has lent or handed over: a call that keeps a handle is an error of the host.
fn let_go(value: &Val, store: &mut StoreContextMut<'_, GuestState>) -> Result<()> {
    match value {
        Val::Resource(handle) => handle.resource_drop(store),
        Val::List(values) | Val::Tuple(values) => {
            values.iter().try_for_each(|value| let_go(value, store))
        }
        Val::Record(fields) => fields
            .iter()
            .try_for_each(|(_, value)| let_go(value, store)),
        Val::Variant(_, Some(value))
        | Val::Option(Some(value))
        | Val::Result(Ok(Some(value)) | Err(Some(value))) => let_go(value, store),
        _ => Ok(()),
    }
}

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// Steps of a fixed generator (xorshift64).
fn random_bytes(length: u64) -> Result<Val> {
    if length > RANDOM_BYTES {
        return Err(Error::msg("the guest asked for too many random bytes"));
    }
    let mut state = SEED;
    let bytes = (0..length).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        Val::U8(state.to_le_bytes()[7])
    });
    Ok(Val::List(bytes.collect()))
}

/// The value of a type that says nothing: zero, empty, none, and an error where success would have to bring something.
fn nothing(ty: &Type, store: &mut StoreContextMut<'_, GuestState>) -> Result<Val> {
    Ok(match ty {
        Type::Bool => Val::Bool(false),
        Type::S8 => Val::S8(0),
        Type::U8 => Val::U8(0),
        Type::S16 => Val::S16(0),
        Type::U16 => Val::U16(0),
        Type::S32 => Val::S32(0),
        Type::U32 => Val::U32(0),
        Type::S64 => Val::S64(0),
        Type::U64 => Val::U64(0),
        Type::Float32 => Val::Float32(0.0),
        Type::Float64 => Val::Float64(0.0),
        Type::Char => Val::Char('\0'),
        Type::String => Val::String(String::new()),
        Type::List(_) => Val::List(Vec::new()),
        Type::Flags(_) => Val::Flags(Vec::new()),
        Type::Option(_) => Val::Option(None),
        Type::Record(record) => {
            let fields: Result<Vec<_>> = record
                .fields()
                .map(|field| Ok((field.name.to_owned(), nothing(&field.ty, store)?)))
                .collect();
            Val::Record(fields?)
        }
        Type::Tuple(tuple) => {
            let values: Result<Vec<_>> = tuple.types().map(|ty| nothing(&ty, store)).collect();
            Val::Tuple(values?)
        }
        // The last case: of a stream's errors that is `closed`.
        Type::Variant(variant) => {
            let last = variant.cases().last();
            let case = last.ok_or_else(|| Error::msg("a variant without cases"))?;
            let payload = case.ty.map(|ty| nothing(&ty, store)).transpose()?;
            Val::Variant(case.name.to_owned(), payload.map(Box::new))
        }
        Type::Enum(names) => {
            let last = names.names().last();
            Val::Enum(
                last.ok_or_else(|| Error::msg("an enum without names"))?
                    .to_owned(),
            )
        }
        Type::Result(result) => match (result.ok(), result.err()) {
            (None, _) => Val::Result(Ok(None)),
            (Some(_), Some(error)) => Val::Result(Err(Some(Box::new(nothing(&error, store)?)))),
            (Some(_), None) => Val::Result(Err(None)),
        },
        Type::Own(_) => {
            let resource = Resource::<Nothing>::new_own(0);
            Val::Resource(ResourceAny::try_from_resource(resource, store)?)
        }
        _ => return Err(Error::msg("a value of this type cannot be given")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_packages_of_the_known_generation_give_nothing() {
        assert!(gives_nothing("wasi:cli/environment@0.2.3"));
        assert!(gives_nothing("wasi:http/types@0.2.10"));
        assert!(!gives_nothing("wasi:cli/environment@0.3.0"));
        assert!(!gives_nothing("wasi:keyvalue/store@0.2.0"));
        assert!(!gives_nothing("acme:telemetry/send@0.2.0"));
    }

    #[test]
    fn random_bytes_are_the_same_in_every_instance_and_bounded() {
        let (one, other) = (random_bytes(32).unwrap(), random_bytes(32).unwrap());
        assert_eq!(one, other);
        assert!(matches!(one, Val::List(bytes) if bytes.len() == 32));
        assert!(random_bytes(RANDOM_BYTES + 1).is_err());
    }
}

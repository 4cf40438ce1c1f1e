//! Runs on: loop thread.
//!
//! Slots of CPython that pyo3 has no safe way to.
//!
//! `am_send` for our awaitables, and its use on those of others: without the slot each result of an
//! `await` travels in a `StopIteration` that is made, raised and taken apart again. `tp_descr_get`
//! binds a method without a look-up by its name. What application code runs below survives the end of
//! the interpreter: see [`ParkedAtExit`].

#![allow(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use pyo3::exceptions::{PyRuntimeError, PyStopIteration, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use pyo3::{PyTypeInfo, ffi};

/// What resuming a coroutine leads to.
pub(crate) enum Resumed<'py> {
    /// It waits for what it yields.
    Yielded(Bound<'py, PyAny>),
    /// It has ended.
    Returned(Bound<'py, PyAny>),
}

/// A class whose instances are resumed like a coroutine.
pub(crate) trait Resume: PyTypeInfo {
    /// Sends `value` in: `None` at first, and from a task always.
    fn resume<'py>(slf: &Bound<'py, Self>, value: &Bound<'py, PyAny>) -> PyResult<Resumed<'py>>;
}

/// Gives `T` the slot, and for `__await__` a function of CPython's that does all that it has to do.
/// Its pymethods must have `__await__`, which makes pyo3 give the type the structure that the slots
/// are in.
pub(crate) fn install<T: Resume>(py: Python<'_>) -> PyResult<()> {
    let class = T::type_object_raw(py);
    // SAFETY: `class` is a live type object: the one that pyo3 keeps for `T`.
    let slots = unsafe { (*class).tp_as_async };
    if slots.is_null() {
        return Err(PyRuntimeError::new_err(
            "a class without `__await__` can't be resumed",
        ));
    }
    // SAFETY: `slots` lies in the heap type `class` and lives as long; we are attached, so nobody
    // reads it meanwhile.
    let slots = unsafe { &mut *slots };
    slots.am_send = Some(am_send::<T>);
    slots.am_await = Some(ffi::PyObject_SelfIter);
    // SAFETY: `class` is a type object, and we are attached.
    unsafe { ffi::PyType_Modified(class) };
    Ok(())
}

/// Resumes any iterator or coroutine with `value`.
pub(crate) fn resume<'py>(
    coroutine: &Bound<'py, PyAny>,
    value: &Bound<'py, PyAny>,
) -> PyResult<Resumed<'py>> {
    let py = coroutine.py();
    let mut result = ptr::null_mut();
    let parking = ParkedAtExit;
    // SAFETY: both objects are live and `result` is ours; the function takes any object, and
    // raises `AttributeError` for one that can't be resumed.
    let status = unsafe { PyIter_Send(coroutine.as_ptr(), value.as_ptr(), &raw mut result) };
    std::mem::forget(parking);
    if matches!(status, ffi::PySendResult::PYGEN_ERROR) {
        return Err(PyErr::fetch(py));
    }
    // SAFETY: without an error, `result` is a new reference that is ours.
    let result = unsafe { Bound::from_owned_ptr(py, result) };
    Ok(match status {
        ffi::PySendResult::PYGEN_NEXT => Resumed::Yielded(result),
        _ => Resumed::Returned(result),
    })
}

/// Calls what may be running when the interpreter ends, with `arguments`.
pub(crate) fn call<'py>(
    callable: &Bound<'py, PyAny>,
    arguments: &Bound<'py, PyTuple>,
) -> PyResult<Bound<'py, PyAny>> {
    let parking = ParkedAtExit;
    // SAFETY: live objects, of which one is a tuple; there are no arguments by name.
    let result = unsafe { PyObject_Call(callable.as_ptr(), arguments.as_ptr(), ptr::null_mut()) };
    std::mem::forget(parking);
    // SAFETY: the function gives a new reference, or raises and gives none.
    unsafe { Bound::from_owned_ptr_or_err(callable.py(), result) }
}

/// Parks the thread for ever if the interpreter ends while application code runs on it, which is so in somebody else's
/// process. Python 3.14 does that; before, such a thread is made to exit when it wants the GIL again, by an unwinding
/// that takes destructors along, as pyo3 makes use of it, too. Caught in Rust, it would abort the process.
struct ParkedAtExit;

impl Drop for ParkedAtExit {
    fn drop(&mut self) {
        while !std::thread::panicking() {
            std::thread::park();
        }
    }
}

// As pyo3's, but that an unwinding may come out of them.
unsafe extern "C-unwind" {
    fn PyIter_Send(
        coroutine: *mut ffi::PyObject,
        value: *mut ffi::PyObject,
        result: *mut *mut ffi::PyObject,
    ) -> ffi::PySendResult;

    fn PyObject_Call(
        callable: *mut ffi::PyObject,
        arguments: *mut ffi::PyObject,
        named: *mut ffi::PyObject,
    ) -> *mut ffi::PyObject;
}

/// A step in the language of iterators, for who does not use the slot.
pub(crate) fn stepped(resumed: PyResult<Resumed<'_>>) -> PyResult<Bound<'_, PyAny>> {
    match resumed? {
        Resumed::Yielded(waiter) => Ok(waiter),
        // A tuple, or `StopIteration` would take a tuple for its arguments.
        Resumed::Returned(result) => Err(PyStopIteration::new_err((result.unbind(),))),
    }
}

/// The method that `descriptor`, of the class of `object`, gives for it.
pub(crate) fn bind_method<'py>(
    descriptor: &Bound<'py, PyAny>,
    object: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = descriptor.py();
    let kind = descriptor.get_type();
    // SAFETY: `kind` is a live type object.
    let get = unsafe { (*kind.as_type_ptr()).tp_descr_get };
    let get = get.ok_or_else(|| PyTypeError::new_err("expected a method of a class"))?;
    let class = object.get_type();
    // SAFETY: three live objects, and we are attached. The slot checks whether it can bind them.
    let bound = unsafe { get(descriptor.as_ptr(), object.as_ptr(), class.as_ptr()) };
    // SAFETY: the slot gives a new reference, or raises and gives none.
    unsafe { Bound::from_owned_ptr_or_err(py, bound) }
}

/// Whether `object` is what calling an `async def` function gives.
pub(crate) fn is_coroutine(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: a live object, whose type is compared.
    unsafe { ffi::PyCoro_CheckExact(object.as_ptr()) != 0 }
}

/// The slot: `PyAsyncMethods.am_send` of CPython's documentation.
unsafe extern "C" fn am_send<T: Resume>(
    slf: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    result: *mut *mut ffi::PyObject,
) -> ffi::PySendResult {
    // SAFETY: CPython calls slots on attached threads only.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: a slot's first argument is a live instance of its type.
    let slf = unsafe { Bound::from_borrowed_ptr(py, slf) };
    // SAFETY: `install` puts this function for `T` into the type of `T`.
    let slf = unsafe { slf.cast_unchecked::<T>() };
    // SAFETY: a live object.
    let value = unsafe { Bound::from_borrowed_ptr(py, value) };
    let resumed = catch_unwind(AssertUnwindSafe(|| T::resume(slf, &value))).unwrap_or_else(|_| {
        Err(PyRuntimeError::new_err(
            "aiovoy panicked; the log says where",
        ))
    });
    let (object, status) = match resumed {
        Ok(Resumed::Yielded(object)) => (object.into_ptr(), ffi::PySendResult::PYGEN_NEXT),
        Ok(Resumed::Returned(object)) => (object.into_ptr(), ffi::PySendResult::PYGEN_RETURN),
        Err(error) => {
            error.restore(py);
            (ptr::null_mut(), ffi::PySendResult::PYGEN_ERROR)
        }
    };
    // SAFETY: CPython gives a place for the result.
    unsafe { *result = object };
    status
}

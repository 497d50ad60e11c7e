package main

import (
	"reflect"

	"github.com/cachesidecar/cachesidecar/internal/logs"
)

// shown returns a copy of a sidecar's answer in which all texts are fit for a terminal.
// Names of hosts, and what is wrong with them, come from other hosts, which may not be
// trusted.
func shown[T any](v T) T {
	return shownValue(reflect.ValueOf(&v).Elem()).Interface().(T)
}

// shownValue returns a changed copy of v; v itself stays as it is.
func shownValue(v reflect.Value) reflect.Value {
	out := reflect.New(v.Type()).Elem()
	out.Set(v)
	switch v.Kind() {
	case reflect.String:
		out.SetString(logs.Plain(v.String()))
	case reflect.Struct:
		for i := range v.NumField() {
			if out.Field(i).CanSet() {
				out.Field(i).Set(shownValue(v.Field(i)))
			}
		}
	case reflect.Slice:
		if v.IsNil() {
			break
		}
		out.Set(reflect.MakeSlice(v.Type(), v.Len(), v.Len()))
		for i := range v.Len() {
			out.Index(i).Set(shownValue(v.Index(i)))
		}
	case reflect.Map:
		if v.IsNil() {
			break
		}
		out.Set(reflect.MakeMapWithSize(v.Type(), v.Len()))
		for k, e := range v.Seq2() {
			out.SetMapIndex(shownValue(k), shownValue(e))
		}
	case reflect.Pointer:
		if !v.IsNil() {
			out.Set(reflect.New(v.Type().Elem()))
			out.Elem().Set(shownValue(v.Elem()))
		}
	}
	return out
}

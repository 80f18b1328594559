from ecg_transformers.train.patients import patient_of, patients_of


def test_a_record_without_a_patient_is_a_patient_of_its_own():
    assert patients_of(["a", "b", "c", "d"], ["p", None, "p", None]) == ["p", "record b", "p", "record d"]
    assert patient_of("a", None) != patient_of("b", None)

SELECT * FROM figures;

@echo off
rem Train on segmentation images (segTrain) and real ones (realTrain).
rem Usage: scripts\train_soccer.bat <gpu_id> <batch_size> [data set folder] [up to seven more words of flags]
rem Values with commas need quotes.
if "%~2"=="" (
    echo usage: scripts\train_soccer.bat ^<gpu_id^> ^<batch_size^> [data set folder] [more flags] 1>&2
    exit /b 2
)
set "folder=%~3"
rem a word that begins with - is a flag already
if "%folder:~0,1%"=="-" (set "folder=") else shift /3
if "%folder%"=="" set "folder=datasets\soccer"
for %%I in ("%folder%") do (
    set "root=%%~dpI."
    set "name=%%~nxI"
)
python cycle_gan.py --recipe segmentation --gpu_ids %~1 --batch_size %~2 --dataset_dir "%root%" --dataset_name "%name%" %3 %4 %5 %6 %7 %8 %9
